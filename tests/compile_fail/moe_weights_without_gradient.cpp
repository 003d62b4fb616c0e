// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::moe_policies: the balancer pushes on the weights of the experts and those of this router

#include <graft/layers/moe.hpp>
#include <graft/policies/balancer/btx_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

// Logits that balancers may push on, and weights that do not depend on them.
struct constant_weights : graft::top_k<1> {
  static constexpr graft::router_spec spec{.experts_per_token = 1, .logit_gradients = false};
};

graft::moe_policies<graft::top_k<2>, graft::btx_loss, graft::routed> allowed;

#ifdef GRAFT_MUST_FAIL
graft::moe_policies<constant_weights, graft::btx_loss, graft::routed> refused;
#endif
