// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Several balancers at once: losses add.

#include <graft/policies/balancer/balancer.hpp>

namespace graft {

namespace detail {
// A plain recursive aggregate rather than std::tuple, which is not trivially copyable.
template <class... Balancers>
struct balancer_list;
template <class Last>
struct balancer_list<Last> {
  Last first{};
  template <class F>
  GRAFT_HOST_DEVICE constexpr auto sum(const F& f) const {
    return f(first);
  }
};
template <class First, class... Rest>
struct balancer_list<First, Rest...> {
  First first{};
  balancer_list<Rest...> rest{};
  template <class F>
  GRAFT_HOST_DEVICE constexpr auto sum(const F& f) const {
    return f(first) + rest.sum(f);
  }
};
}  // namespace detail

template <Balancer... Balancers>
struct all {
  static_assert(sizeof...(Balancers) > 0, "graft::all: no balancer given. Use no_balancer for none.");
  static constexpr balancer_spec spec{.logit_gradients = (Balancers::spec.logit_gradients || ...)};
  static constexpr const char* name = "all";

  detail::balancer_list<Balancers...> balancers{};

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>& group) const {
    return balancers.sum([&](const auto& balancer) { return balancer.loss(group); });
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>& group, index_t i) const {
    return balancers.sum([&](const auto& balancer) { return balancer.d_mean_score(group, i); });
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M lse) const {
    return balancers.sum([&](const auto& balancer) { return balancer.d_log_sum_exp(lse); });
  }
};

}  // namespace graft
