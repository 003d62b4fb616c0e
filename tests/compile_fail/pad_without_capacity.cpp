// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::pad_to_capacity: the layout has no capacity. Give it one

// Rows can be padded to a capacity only where there is one.

#include <graft/policies/expert_layout/capacity.hpp>

static_assert(graft::pad_to_capacity<graft::capacity<>>::spec.experts == graft::dynamic_experts);

#ifdef GRAFT_MUST_FAIL
static_assert(graft::pad_to_capacity<graft::routed>::spec.experts == graft::dynamic_experts);
#endif
