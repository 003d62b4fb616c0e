// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The list of what the programs offer by name. A policy of your own is one more line here; --list prints it, --router,
// --balancer and --layout find it, graft.json keeps it.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include <graft/policies/balancer/all_balancers.hpp>
#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>
#include <graft/policies/router/all_routers.hpp>

#include "common/mixtures.hpp"

namespace examples {

// The routers, in two parts that are compiled apart (the second in bf16 only), and the usual ones, which is all that is
// compiled for CUDA with -DGRAFT_EXAMPLES_CUDA_POLICIES=usual: nvcc takes minutes for the rest.
// visit.template operator()<Router>(what): once for each router and number of slots K. Those that use all experts have
// a fixed number of them: that of the default domains.
enum class router_part { first, second, usual };
namespace detail {
inline constexpr graft::index_t all_experts = all_experts_compiled;

template <class Compute>
constexpr bool usual_policies_alone() {
#if defined(GRAFT_USUAL_CUDA_POLICIES)
  return std::is_same_v<typename Compute::backend, graft::cuda>;
#else
  return false;
#endif
}
}  // namespace detail

template <router_part Part, class Visit>
void for_each_router(const Visit& visit) {
  using namespace graft;
  if constexpr (Part == router_part::usual) {
    visit.template operator()<top_k<1>>("");
    visit.template operator()<top_k<2>>("");
  } else if constexpr (Part == router_part::first) {
    visit.template operator()<top_k<1>>("softmax over the K largest logits (BTX, Mixtral)");
    visit.template operator()<top_k<2>>("softmax over the K largest logits (BTX, Mixtral)");
    visit.template operator()<softmax_top_k<2>>("the K largest of the softmax, as they are (OLMoE)");
    visit.template operator()<renormalised_top_k<2>>("the K largest of the softmax, renormalised");
    visit.template operator()<switch_top_1>("the largest of the softmax, as it is (Switch)");
    visit.template operator()<soft<detail::all_experts>>("all experts, by the softmax (BTX soft)");
    visit.template operator()<sample_top_1<detail::all_experts>>(
        "one expert by Gumbel noise, the first layer soft (BTX sample)");
    visit.template operator()<sigmoid_top_k<2>>("sigmoid affinities, selection bias, groups (DeepSeek-V3)");
  } else {
    visit.template operator()<group_limited_top_k<2>>("experts of the best groups (DeepSeek-V2)");
    visit.template operator()<null_top_k<2>>("up to K experts, those above the null logit");
    visit.template operator()<flex_olmo<2>>("one row per owner with a bias below 0 (FlexOlmo)");
    visit.template operator()<context_top_k<1>>("logits of the token mixed with its past (MetaMoE)");
    visit.template operator()<ermoe<2>>("cosine in each expert's own subspace (ERMoE)");
    visit.template operator()<hash_router<2>>("by a hash of the token, nothing learned");
    visit.template operator()<expert_choice<detail::all_experts>>("experts choose tokens; not causal");
  }
}

// The layouts; with other routers than top_k/2 the programs are compiled for routed, with soft for adapted too.
template <class Visit>
void for_each_layout(const Visit& visit) {
  using namespace graft;
  visit.template operator()<routed>("E experts, no token dropped");
  visit.template operator()<capacity<>>("room for layout.factor times the mean load, later tokens are dropped");
  visit.template operator()<capacity<routed, drop_by::probability>>(
      "the same, those with the least weight are dropped");
  visit.template operator()<pad_to_capacity<capacity<>>>("capacity, every expert filled up with empty rows");
  visit.template operator()<adapted>("an adapter of width x width behind each expert");
  visit.template operator()<lora>("a low-rank addition to each expert");
  visit.template operator()<mixed_width>(
      "each expert as wide as its branch; not by name, branches of other widths get it");
}

// All losses in one type: those that a program was not asked for have the coefficient 0. It keeps the number of types
// that are compiled equal to the number of routers.
template <class Visit>
void for_each_balancer(const Visit& visit) {
  using namespace graft;
  visit.template operator()<switch_loss>("E sum f P: fractions of counts times mean scores");
  visit.template operator()<btx_loss>("E sum u P: mean weights times mean scores");
  visit.template operator()<sequence_loss>("switch_loss of each sequence alone (DeepSeek-V3)");
  visit.template operator()<global_batch_loss>("switch_loss over the passes of a step");
  visit.template operator()<z_loss>("mean squared logsumexp of the logits");
  visit.template operator()<loss_free_bias>("a bias that moves against the load; needs sigmoid_top_k (DeepSeek-V3)");
  visit.template operator()<dirichlet_prior>("scores as from a Dirichlet distribution; with top_k/2");
}

namespace detail {

using usual_router = graft::top_k<2>;

template <class Router, class Compute>
constexpr auto every_balancer() {
  using namespace graft;
  constexpr bool few = usual_policies_alone<Compute>();
  if constexpr (!Router::spec.logits)
    return no_balancer{};
  else if constexpr (few && Router::spec.selection_bias)
    return graft::all<z_loss, loss_free_bias>{};
  else if constexpr (few)
    return graft::all<switch_loss, z_loss>{};
  else if constexpr (Router::spec.selection_bias)
    return graft::all<switch_loss, btx_loss, sequence_loss, global_batch_loss, z_loss, loss_free_bias>{};
  else
    return graft::all<switch_loss, btx_loss, sequence_loss, global_batch_loss, z_loss>{};
}
template <class Router, class Compute>
using balancers_for = decltype(every_balancer<Router, Compute>());

// Balancers that were not asked for say nothing: the first option of a balancer is its strength.
template <class Balancer>
void silence_others(Balancer& balancer, const mixture_names& names) {
  std::string there;
  graft::detail::for_each_balancer(balancer, [&](auto& single) {
    using type = std::remove_reference_t<decltype(single)>;
    there += std::string(there.empty() ? "" : ", ") + type::name;
    if (std::find(names.balancers.begin(), names.balancers.end(), type::name) != names.balancers.end()) return;
    bool first = true;
    graft::for_each_option(single, [&](const std::string&, auto& value) {
      if (std::exchange(first, false)) value = 0;
    });
  });
  for (const std::string& name : names.balancers)
    GRAFT_CHECK(name == "none" || (", " + there + ",").find(", " + name + ",") != std::string::npos, "the router ",
                names.router, " goes with the balancers ", there, " in these programs, got ", name);
}

template <class Router, class Balancer, class Layout, class Compute>
graft::any_mixture<Compute> mixture_of(const mixture_names& names) {
  graft::mixture<Router, Balancer, Layout> mixture;
  silence_others(mixture.balancer, names);
  graft::any_mixture<Compute> result(mixture);
  for (const auto& [name, value] : names.options) result.set_option(name, value);
  return result;
}

inline void add_name(std::string& text, const std::string& name) {
  if ((", " + text + ",").find(", " + name + ",") == std::string::npos) text += (text.empty() ? "" : ", ") + name;
}

}  // namespace detail

// What the programs are compiled for, for messages.
struct compiled_routers {
  std::string all;      // name/K of every router
  std::string numbers;  // K of those that have the name that was asked for
};

// A mixture of routed experts with a router of this part, if names says so; adds the routers of the part to known.
template <class Compute, router_part Part>
std::optional<graft::any_mixture<Compute>> make_routed(const mixture_names& names, compiled_routers& known) {
  std::optional<graft::any_mixture<Compute>> result;
  for_each_router<Part>([&]<class R>(const char*) {
    const std::string number = std::to_string(R::spec.experts_per_token);
    detail::add_name(known.all, std::string(R::name) + "/" + number);
    if (names.router == R::name) detail::add_name(known.numbers, number);
    if (names.router != R::name || names.experts_per_token != R::spec.experts_per_token) return;
    result = detail::mixture_of<R, detail::balancers_for<R, Compute>, graft::routed, Compute>(names);
  });
  return result;
}

// Of top_k/2 in another layout, or with a balancer that costs too much to stand by silently; soft routing of experts
// with adapters, which BAM's adapters need.
template <class Compute>
std::optional<graft::any_mixture<Compute>> make_special(const mixture_names& names) {
  using router = detail::usual_router;
  using all_of_them = graft::soft<detail::all_experts>;
  std::optional<graft::any_mixture<Compute>> result;
  if (names.router == all_of_them::name && names.experts_per_token == detail::all_experts &&
      names.layout == graft::adapted::name)
    return detail::mixture_of<all_of_them, detail::balancers_for<all_of_them, Compute>, graft::adapted, Compute>(names);
  if (names.router != router::name || names.experts_per_token != router::spec.experts_per_token) return result;
  const bool dirichlet =
      std::find(names.balancers.begin(), names.balancers.end(), graft::dirichlet_prior::name) != names.balancers.end();
  if (dirichlet && names.layout == graft::routed::name)
    return detail::mixture_of<router, graft::all<graft::switch_loss, graft::z_loss, graft::dirichlet_prior>,
                              graft::routed, Compute>(names);
  for_each_layout([&]<class L>(const char*) {
    if constexpr (!std::is_same_v<L, graft::routed>)
      if (names.layout == L::name)
        result = detail::mixture_of<router, detail::balancers_for<router, Compute>, L, Compute>(names);
  });
  return result;
}

template <class Compute>
graft::any_mixture<Compute> make_mixture(const mixture_names& names) {
  compiled_routers routers;
  std::string layouts, balancers;
  for_each_layout([&]<class L>(const char*) { detail::add_name(layouts, L::name); });
  GRAFT_CHECK((", " + layouts + ",").find(", " + names.layout + ",") != std::string::npos, "expected a layout of ",
              layouts, ", got ", names.layout);
  for_each_balancer([&]<class B>(const char*) { detail::add_name(balancers, B::name); });
  for (const std::string& name : names.balancers)
    GRAFT_CHECK(name == "none" || (", " + balancers + ",").find(", " + name + ",") != std::string::npos,
                "expected balancers of ", balancers, " or none, got ", name);
  constexpr bool few = detail::usual_policies_alone<Compute>();
  constexpr bool all_parts = std::is_same_v<typename Compute::precision, graft::bf16>;
  std::optional<graft::any_mixture<Compute>> result;
  if constexpr (!few) result = make_special<Compute>(names);
  const bool routed = names.layout == graft::routed::name;
  if constexpr (few) {
    if (routed) result = make_routed<Compute, router_part::usual>(names, routers);
  } else {
    if (!result && routed) result = make_routed<Compute, router_part::first>(names, routers);
    if constexpr (all_parts)
      if (!result && routed) result = make_routed<Compute, router_part::second>(names, routers);
  }
  GRAFT_CHECK(result || routers.numbers.empty(), "the router ", names.router, " is compiled for --experts-per-token ",
              routers.numbers, " in these programs, got ", names.experts_per_token);
  GRAFT_CHECK(result, "these programs are compiled for the routers ", routers.all, " (name/experts per token)",
              few         ? " on CUDA"
              : all_parts ? ""
                          : " in fp32",
              " with the layout routed", few ? std::string() : ", and for top_k/2 with the layouts " + layouts,
              "; got ", names.router, "/", names.experts_per_token, " with ", names.layout);
  return std::move(*result);
}

}  // namespace examples
