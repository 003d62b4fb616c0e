// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Concept Balancer: what keeps the load of the experts even.

#include <concepts>
#include <type_traits>

#include <graft/core/host_device.hpp>
#include <graft/policies/archetypes.hpp>

namespace graft {

// What is measured over a set of tokens whose load is balanced together. Padding is in none of it.
template <class M>
struct balance_statistics {
  const M* counts;  // (N) (token, slot) pairs sent to each expert; of extra columns (null experts), slots left empty
  const M* mean_scores;   // (N) mean over tokens of the experts' probabilities (policies/router/probabilities.hpp)
  const M* mean_weights;  // (N) mean over tokens of the weight that each expert is combined with
  M mean_squared_lse;     // mean over tokens of logsumexp(l)^2
  M filled;               // sum of counts: K tokens, less what a router leaves empty without a column for it
  M tokens;               // how many
  M choices;              // what stands for the number of experts: E, or all null copies and experts together
  index_t columns;        // N: E and the router's extra columns
  index_t slots;          // K
};

// Over which tokens a balancer takes its statistics.
enum class balance_scope {
  sequence,  // each sequence
  group,     // each balance group of a pass: by default the pass
  step,      // all passes of an optimizer step so far, this one included
};

// What a balancer does, at compile time.
struct balancer_spec {
  bool logit_gradients = false;  // its loss pushes on the router's logits
  bool selection_bias = false;   // it keeps a bias that the router adds to its scores when it selects
  bool mean_weights = false;     // its loss has a gradient to the weights: d_mean_weight
  bool all_scores = false;       // its loss is a function of every token's scores: score_loss (and logit_gradients)
  balance_scope scope = balance_scope::group;
};

// Concept Balancer
//
// Minimal definition:
//   static constexpr balancer_spec spec;
//   static constexpr const char* name;
//   M loss(balance_statistics<M>) const                         its loss over one set of tokens, coefficient included
//   M d_mean_score(balance_statistics<M>, index_t i) const      its derivative to mean_scores[i], counts held fixed
//   M d_log_sum_exp(M lse) const                                the derivative of its part per token to logsumexp(l)
// All are templates on M, GRAFT_HOST_DEVICE, pure. The loss of a layer is the mean over its sets of tokens
// (spec.scope), sets of nothing but padding left out, the loss of a model the sum over its layers. A balancer object is
// trivially copyable.
//
// Where spec says so, also:
//   mean_weights     M d_mean_weight(balance_statistics<M>, index_t i) const      the derivative to mean_weights[i]
//   selection_bias   end_step(group, M* bias, const M* counts, index_t experts) const, GRAFT_HOST_DEVICE
//                        once after each optimizer step: moves the bias (E, starts at zero, saved with the model as a
//                        parameter that no optimizer touches) by the counts of the whole step
//   all_scores       score_loss(context, index_t experts, M choices, scores (T, N), d_scores (T, N), loss (1)) const
//                        adds its loss to loss, which may be absent, and its gradient to d_scores. The scores of
//                        padding are -1. Once a pass, whatever the scope
//
// Models: no_balancer, switch_loss, btx_loss, sequence_loss, global_batch_loss, z_loss, loss_free_bias,
// dirichlet_prior, all<...>.
//
// Laws: the derivatives are those of loss; a loss over counts and scores is at its minimum at uniform routing; nothing
// depends on the order of tokens; a bias moves towards the experts with less than the mean load and rests at balance.
template <class B>
concept has_balancer_spec = requires {
  { B::spec } -> std::convertible_to<balancer_spec>;
};
template <class B>
concept has_balancer_name = requires {
  { B::name } -> std::convertible_to<const char*>;
};
template <class B>
concept has_balancer_loss = requires(const B& balancer, const balance_statistics<double>& statistics) {
  { balancer.loss(statistics) } -> std::same_as<double>;
};
template <class B>
concept has_d_mean_score = requires(const B& balancer, const balance_statistics<double>& statistics, index_t i) {
  { balancer.d_mean_score(statistics, i) } -> std::same_as<double>;
};
template <class B>
concept has_d_log_sum_exp = requires(const B& balancer, double lse) {
  { balancer.d_log_sum_exp(lse) } -> std::same_as<double>;
};
template <class B>
concept has_d_mean_weight = requires(const B& balancer, const balance_statistics<double>& statistics, index_t i) {
  { balancer.d_mean_weight(statistics, i) } -> std::same_as<double>;
};
template <class B>
concept has_score_loss = requires(const B& balancer, detail::context_archetype& context,
                                  const view<double, 2, host_space>& scores, const view<double, 1, host_space>& loss) {
  balancer.score_loss(context, index_t{}, double{}, scores, scores, loss);
};
template <class B>
concept has_end_step = requires(const B& balancer, detail::group_archetype& group, double* bias, const double* counts,
                                index_t experts) {
  balancer.end_step(group, bias, counts, experts);
};

// One balancer. What all<...> makes of several is a Balancer too.
template <class B>
concept SingleBalancer = has_balancer_spec<B> && has_balancer_name<B> && std::is_trivially_copyable_v<B> &&
    has_balancer_loss<B> && has_d_mean_score<B> && has_d_log_sum_exp<B> &&
    (!B::spec.mean_weights || has_d_mean_weight<B>)&&(!B::spec.selection_bias ||
                                                      has_end_step<B>)&&(!B::spec.all_scores || has_score_loss<B>);

template <class B>
concept BalancerList = has_balancer_name<B> && std::is_trivially_copyable_v<B> && B::is_balancer_list;

template <class B>
concept Balancer = SingleBalancer<B> || BalancerList<B>;

// One sentence for each missing piece. Usage: static_assert(graft::check_balancer<my_balancer>());
template <class B>
consteval bool check_balancer() {
  if constexpr (!BalancerList<B>) {
    static_assert(has_balancer_spec<B>,
                  "graft::check_balancer: the balancer has no static constexpr balancer_spec spec. Add one.");
    static_assert(has_balancer_name<B>,
                  "graft::check_balancer: the balancer has no static constexpr const char* name. Add one.");
    static_assert(std::is_trivially_copyable_v<B>,
                  "graft::check_balancer: the balancer is not trivially copyable. Keep plain numbers in it, it travels "
                  "to the device.");
    static_assert(has_balancer_loss<B>,
                  "graft::check_balancer: the balancer has no loss(balance_statistics<M>) const returning M. Add one, "
                  "returning 0 if it has no loss.");
    static_assert(has_d_mean_score<B>,
                  "graft::check_balancer: the balancer has no d_mean_score(balance_statistics<M>, index_t) const "
                  "returning M. Add one.");
    static_assert(has_d_log_sum_exp<B>,
                  "graft::check_balancer: the balancer has no d_log_sum_exp(M) const returning M. Add one.");
    if constexpr (has_balancer_spec<B>) {
      static_assert(!B::spec.mean_weights || has_d_mean_weight<B>,
                    "graft::check_balancer: spec.mean_weights is set and there is no d_mean_weight("
                    "balance_statistics<M>, index_t) const returning M. Add one or unset the flag.");
      static_assert(!B::spec.selection_bias || has_end_step<B>,
                    "graft::check_balancer: spec.selection_bias is set and there is no end_step(group, bias, counts, "
                    "experts) const. Add one or unset the flag.");
      static_assert(!B::spec.all_scores || has_score_loss<B>,
                    "graft::check_balancer: spec.all_scores is set and there is no score_loss(context, experts, "
                    "choices, scores, d_scores, loss) const. Add one or unset the flag.");
      static_assert(!B::spec.all_scores || B::spec.logit_gradients,
                    "graft::check_balancer: spec.all_scores is set and spec.logit_gradients is not. Set both, a "
                    "gradient to the scores is one to the logits.");
    }
  }
  return true;
}

// What a balancer without a loss says; derive from it and write what differs. A balancer with options writes the three
// functions itself: with a base, g++ warns at my_balancer{.rate = 0.5}.
struct silent_balancer {
  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>&) const {
    return M(0);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>&, index_t) const {
    return M(0);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

// No balancing.
struct no_balancer : silent_balancer {
  static constexpr balancer_spec spec{};
  static constexpr const char* name = "none";
};

namespace detail {

// Calls f(balancer) for each single balancer of a Balancer.
template <class B, class F>
GRAFT_HOST_DEVICE constexpr void for_each_balancer(B& balancer, const F& f) {
  if constexpr (BalancerList<std::remove_const_t<B>>)
    balancer.for_each(f);
  else
    f(balancer);
}

// Whether pred(spec) holds for any of them.
template <class B, class Predicate>
consteval bool any_balancer(Predicate pred) {
  if constexpr (BalancerList<B>)
    return B::any(pred);
  else
    return pred(B::spec);
}

template <class B>
inline constexpr bool pushes_on_logits = any_balancer<B>([](const balancer_spec& s) { return s.logit_gradients; });
template <class B>
inline constexpr bool keeps_selection_bias = any_balancer<B>([](const balancer_spec& s) { return s.selection_bias; });
template <class B>
inline constexpr bool pushes_on_weights = any_balancer<B>([](const balancer_spec& s) { return s.mean_weights; });
template <class B>
inline constexpr bool reads_all_scores = any_balancer<B>([](const balancer_spec& s) { return s.all_scores; });
template <class B, balance_scope Scope>
inline constexpr bool has_scope = any_balancer<B>([](const balancer_spec& s) { return s.scope == Scope; });

}  // namespace detail

}  // namespace graft
