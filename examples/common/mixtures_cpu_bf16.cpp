// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The mixtures on the CPU in bf16, but for the second part of the routers (more_routers_cpu_bf16.cpp), and what the
// programs say of mixtures without a device.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/io/attention_card.hpp>
#include <graft/models/counts.hpp>

#include "common/all_mixtures.hpp"

namespace examples {

using host = graft::compute<graft::bf16, graft::cpu>;

extern template std::optional<graft::any_mixture<host>> make_routed<host, router_part::second>(const mixture_names&,
                                                                                               compiled_routers&);
template graft::any_mixture<host> make_mixture(const mixture_names&);

mixture_facts facts_of(const mixture_names& names, const graft::transformer_shape& shape) {
  const auto facts = [&](const auto& mixture) -> mixture_facts {
    mixture.check(shape);
    return {graft::make_layout(graft::transformer_specs(shape, mixture)), graft::parameter_count(shape, mixture),
            graft::active_parameter_count(shape, mixture), mixture.options(), mixture.causal()};
  };
  const graft::any_mixture<host> mixture = make_mixture<host>(names);
  if (!names.attention) return facts(mixture);
  return facts(
      graft::with_attention_experts<graft::any_mixture<host>>(mixture, graft::attention_experts_of(*names.attention)));
}

policy_lists listed_policies() {
  policy_lists lists;
  const auto add = [](std::vector<policy_line>& lines, const std::string& name, const char* what) {
    if (lines.empty() || lines.back().name != name) lines.push_back({name, what});
  };
  const auto add_router = [&]<class R>(const char* what) {
    // One line for a router; its numbers of slots stand behind its name.
    const std::string slots = std::to_string(R::spec.experts_per_token);
    if (!lists.routers.empty() && lists.routers.back().name.rfind(std::string(R::name) + "/", 0) == 0)
      lists.routers.back().name += "," + slots;
    else
      lists.routers.push_back({std::string(R::name) + "/" + slots, what});
  };
  for_each_router<router_part::first>(add_router);
  for_each_router<router_part::second>(add_router);
  for_each_balancer([&]<class B>(const char* what) { add(lists.balancers, B::name, what); });
  for_each_layout([&]<class L>(const char* what) { add(lists.layouts, L::name, what); });
  return lists;
}

}  // namespace examples
