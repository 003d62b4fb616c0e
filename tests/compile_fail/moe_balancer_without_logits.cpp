// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::moe_policies: the balancer pushes on logits and the router has none.

#include <graft/layers/moe.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/hash_router.hpp>
#include <graft/policies/router/top_k.hpp>

graft::moe_policies<graft::hash_router<1>, graft::no_balancer, graft::routed> allowed;
graft::moe_policies<graft::top_k<1>, graft::switch_loss, graft::routed> also_allowed;

#ifdef GRAFT_MUST_FAIL
graft::moe_policies<graft::hash_router<1>, graft::switch_loss, graft::routed> refused;
#endif
