// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// hub_and_spokes: stitches that read the experts into the hub and the hub into the experts in turn.

#include <tuple>

#include <graft/policies/options.hpp>
#include <graft/policies/stitch_topology/stitch_topology.hpp>

namespace graft {

// Stitch m of K reads the experts into the hub where K - m is even, so the last does, and the hub into each expert
// where it is odd:
//   experts into hub   g = softmax_i(W_gate,i h_0)     h_0 <- g_0 h_0 + sum_i g_i W_proj,i h_i
//                                                      h_i <- W_proj,i h_i
//   hub into experts   g_i = sigmoid(W_gate,i h_0)     h_i <- (1 - g_i) h_i + g_i W_proj,i h_0
// The gate is computed from the hub's state in both, with a value for each channel and each member. A stitch into the
// experts has a block of the gate for the hub too, as in the paper's count of parameters; it is read by nothing.
// Source: Zhang et al., "BTS: Harmonizing specialized experts into a generalist LLM", 2025, arXiv 2502.00075,
// section 3.
struct hub_and_spokes {
  static constexpr const char* name = "hub_and_spokes";
  static constexpr stitch_topology_spec spec{};

  index_t hub = 0;  // the member whose output is read: the seed, in the paper
  static constexpr auto options() { return std::tuple(option("hub", &hub_and_spokes::hub)); }

  constexpr stitch_plan plan(index_t blocks, index_t stitches, index_t members) const {
    stitch_plan plan = empty_stitch_plan(name, blocks, stitches, members, hub);
    for (std::size_t k = 0; k < plan.steps.size(); ++k) {
      stitch_step& step = plan.steps[k];
      if ((plan.steps.size() - 1 - k) % 2 == 0) {
        step.merges.push_back(merge_of_others(members, hub, true));
        continue;
      }
      step.idle_gate = hub;
      for (index_t member = 0; member < members; ++member) {
        if (member == hub) continue;
        stitch_merge merge;
        merge.into = member;
        merge.gated_by = hub;
        merge.gate = stitch_gate::sigmoid;
        merge.from.push_back(hub);
        step.merges.push_back(merge);
      }
    }
    return plan;
  }
};

}  // namespace graft
