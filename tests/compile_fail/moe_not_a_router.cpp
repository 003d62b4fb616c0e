// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: Router

// What is no router is refused at the door, by the concept that it fails.

#include <graft/layers/moe.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

graft::moe_policies<graft::top_k<2>, graft::no_balancer, graft::routed> allowed;

#ifdef GRAFT_MUST_FAIL
graft::moe_policies<graft::no_balancer, graft::no_balancer, graft::routed> refused;
#endif
