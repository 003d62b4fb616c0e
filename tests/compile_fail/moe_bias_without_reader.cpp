// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::moe_policies: the balancer keeps a selection bias and the router does not read one.

#include <graft/layers/moe.hpp>
#include <graft/policies/balancer/loss_free_bias.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/sigmoid_top_k.hpp>
#include <graft/policies/router/top_k.hpp>

graft::moe_policies<graft::sigmoid_top_k<2>, graft::loss_free_bias, graft::routed> allowed;

#ifdef GRAFT_MUST_FAIL
graft::moe_policies<graft::top_k<2>, graft::loss_free_bias, graft::routed> refused;
#endif
