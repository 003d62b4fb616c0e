// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What surrounds the routing of the tokens of a layer: where in the run they stand, and what state the layer keeps.

#include <cstdint>

#include <graft/core/host_device.hpp>
#include <graft/core/philox.hpp>
#include <graft/core/step_value.hpp>
#include <graft/core/view.hpp>

namespace graft {

// Where a pass stands in a run. A random number of a router is a function of (seed, step, layer, token) alone, so that
// a backward pass draws it again and one pass of four sequences draws the numbers of four passes of one.
struct pass_position {
  std::uint64_t seed = 0;
  step_value<index_t> step = 0;  // of the optimizer; in training where the trainer writes it
  index_t first_token = 0;       // where the tokens of this pass begin in the batch of the step
  bool training = false;         // false: evaluation and generation; routers draw no noise
};

// One token.
template <class M>
struct routing_token {
  pass_position at{};
  index_t layer = 0;
  index_t token = 0;                  // in the pass
  std::int32_t id = 0;                // in the vocabulary; -1 is padding, which is routed nowhere
  const M* selection_bias = nullptr;  // (E) added to scores when experts are selected, and nowhere else; null for none

  // Uniform in (0, 1]; `draw` numbers the draws of one token.
  GRAFT_HOST_DEVICE double uniform(index_t draw) const {
    const random_source source{at.seed, random_stream::router};
    const auto major = static_cast<std::uint64_t>(at.step) << 12 | static_cast<std::uint64_t>(layer);
    const auto minor = static_cast<std::uint64_t>(at.first_token + token) << 20 | static_cast<std::uint64_t>(draw);
    return random_source::uniform(source.words(major, minor).word[0]);
  }
};

template <class M, class Space>
struct routing_pass;

// Sees what the routers of a model choose, while a pass runs; see transformer::observe_routing.
template <class M, class Space>
class routing_observer {
 public:
  virtual ~routing_observer() = default;
  // Called once by each layer that routes, on the host, when the choices are queued. Shapes: selected, weights (T, K),
  // an empty slot is -1. Requires: no host synchronisation; both views end with the pass.
  virtual void routed(const routing_pass<M, Space>& pass, const view<const std::int32_t, 2, Space>& selected,
                      const view<const M, 2, Space>& weights) = 0;
};

// All tokens of one layer in one pass.
template <class M, class Space>
struct routing_pass {
  pass_position at{};
  index_t layer = 0;
  index_t experts = 0;                       // E
  index_t positions = 1;                     // S: the T tokens are T / S sequences
  index_t balance_groups = 1;                // runs of tokens whose load is balanced separately
  view<const std::int32_t, 1, Space> ids{};  // (T); absent: no token is padding and none has an id
  view<M, 1, Space> selection_bias{};        // (E) or absent
  view<M, 1, Space> load{};                  // layers/routing_statistics.hpp, routing_load; absent: not counted
  view<M, 1, Space> loss{};                  // (1) the balancers' losses are added; absent: not counted
  routing_observer<M, Space>* observer = nullptr;

  // For kernels: looks up the step.
  GRAFT_HOST_DEVICE routing_token<M> token(index_t index) const {
    return {{at.seed, index_t{at.step}, at.first_token, at.training},
            layer,
            index,
            ids.data != nullptr ? ids[index] : 0,
            selection_bias.data};
  }
  GRAFT_HOST_DEVICE bool padding(index_t index) const { return ids.data != nullptr && ids[index] < 0; }
};

}  // namespace graft
