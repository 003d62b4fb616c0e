// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::moe_policies: the balancer pushes on logits and the router has none. Use no_balancer or a router with
// logits.

#include <graft/layers/moe.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

// A router by a table, say: nothing that a balancer could push on.
struct without_logits : graft::top_k<1> {
  static constexpr graft::router_spec spec{.experts_per_token = 1, .logit_gradients = false};
};

graft::moe_policies<without_logits, graft::no_balancer, graft::routed> allowed;
graft::moe_policies<graft::top_k<1>, graft::switch_loss, graft::routed> also_allowed;

#ifdef GRAFT_MUST_FAIL
graft::moe_policies<without_logits, graft::switch_loss, graft::routed> refused;
#endif
