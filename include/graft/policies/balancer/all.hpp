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
  GRAFT_HOST_DEVICE constexpr void for_each(const F& f) const {
    f(first);
  }
  template <class F>
  constexpr void for_each(const F& f) {
    f(first);
  }
};
template <class First, class... Rest>
struct balancer_list<First, Rest...> {
  First first{};
  balancer_list<Rest...> rest{};
  template <class F>
  GRAFT_HOST_DEVICE constexpr void for_each(const F& f) const {
    f(first);
    rest.for_each(f);
  }
  template <class F>
  constexpr void for_each(const F& f) {
    f(first);
    rest.for_each(f);
  }
};
}  // namespace detail

// Each member keeps its own scope and coefficient: all<switch_loss, z_loss> b; b.balancers.first.coefficient = 0.1;
template <SingleBalancer... Balancers>
struct all {
  static_assert(sizeof...(Balancers) > 0, "graft::all: no balancer given. Use no_balancer for none.");
  static_assert((int{Balancers::spec.selection_bias} + ... + 0) <= 1,
                "graft::all: more than one balancer keeps a selection bias. A router reads one, keep one of them.");
  static constexpr bool is_balancer_list = true;
  static constexpr const char* name = "all";

  detail::balancer_list<Balancers...> balancers{};

  template <class F>
  GRAFT_HOST_DEVICE constexpr void for_each(const F& f) const {
    balancers.for_each(f);
  }
  template <class F>
  constexpr void for_each(const F& f) {
    balancers.for_each(f);
  }
  template <class Predicate>
  static consteval bool any(Predicate pred) {
    return (pred(Balancers::spec) || ...);
  }
};

}  // namespace graft
