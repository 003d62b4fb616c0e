// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: spec.mean_weights is set and there is no d_mean_weight.*spec.selection_bias is set and there is no
// end_step.*spec.all_scores is set and there is no score_loss.*spec.all_scores is set and spec.logit_gradients is not

// A flag of the spec promises a function.

#include <graft/policies/balancer/all_balancers.hpp>

static_assert(graft::check_balancer<graft::btx_loss>());
static_assert(graft::check_balancer<graft::loss_free_bias>());
static_assert(graft::check_balancer<graft::dirichlet_prior>());

struct promises : graft::silent_balancer {
  static constexpr graft::balancer_spec spec{.selection_bias = true, .mean_weights = true, .all_scores = true};
  static constexpr const char* name = "promises";
};
static_assert(!graft::Balancer<promises>);

#ifdef GRAFT_MUST_FAIL
static_assert(graft::check_balancer<promises>());
#endif
