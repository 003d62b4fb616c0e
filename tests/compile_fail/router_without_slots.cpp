// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: graft::check_router: spec.experts_per_token is below 1. Set it to K.

#include <graft/policies/router/top_k.hpp>

static_assert(graft::check_router<graft::top_k<1>>());

struct forgotten : graft::top_k<1> {
  static constexpr graft::router_spec spec{.weights_sum_to_one = true};
};

#ifdef GRAFT_MUST_FAIL
static_assert(graft::check_router<forgotten>());
#endif
