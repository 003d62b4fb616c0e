// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: no static constexpr balancer_spec spec.*no static constexpr const char. name.*no loss.balance_statistics<M>.
// const returning M.*no d_mean_score.balance_statistics<M>, index_t. const returning M.*no d_log_sum_exp.M. const
// returning M

// Every member that is missing, here by a slip of the pen, has its sentence.

#include <graft/policies/balancer/switch_loss.hpp>

static_assert(graft::check_balancer<graft::no_balancer>());
static_assert(graft::check_balancer<graft::switch_loss>());

struct misspelt {
  static constexpr graft::balancer_spec specs{};
  static constexpr const char* names = "misspelt";
  template <class M>
  GRAFT_HOST_DEVICE float loss(const graft::balance_statistics<M>&) const {  // always float
    return 0;
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_scores(const graft::balance_statistics<M>&, graft::index_t) const {
    return 0;
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp() const {
    return 0;
  }
};
static_assert(!graft::Balancer<misspelt>);

#ifdef GRAFT_MUST_FAIL
static_assert(graft::check_balancer<misspelt>());
#endif
