// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::routed_experts: the number of experts is below 1. Give at least one.

#include <graft/policies/expert_layout/routed.hpp>

graft::routed_experts<1> allowed;
graft::routed also_allowed;

#ifdef GRAFT_MUST_FAIL
graft::routed_experts<0> refused;
#endif
