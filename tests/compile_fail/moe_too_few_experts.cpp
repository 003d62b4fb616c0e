// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::moe_policies: the router selects more experts than the layout has. Lower K or add experts.

#include <graft/layers/moe.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

graft::moe_policies<graft::top_k<3>, graft::no_balancer, graft::routed_experts<3>> allowed;

#ifdef GRAFT_MUST_FAIL
graft::moe_policies<graft::top_k<4>, graft::no_balancer, graft::routed_experts<3>> refused;
#endif
