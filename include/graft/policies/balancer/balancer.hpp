// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Concept Balancer: what keeps the load of the experts even.

#include <concepts>
#include <type_traits>

#include <graft/core/host_device.hpp>

namespace graft {

// What is measured over one balance group: a set of tokens whose statistics are taken together. By default that is all
// tokens of a micro-batch; with as many groups as sequences it is one sequence.
template <class M>
struct balance_statistics {
  const M* counts;       // (E) (token, slot) pairs sent to each expert
  const M* mean_scores;  // (E) mean over tokens of softmax(l)
  M mean_squared_lse;    // mean over tokens of logsumexp(l)^2
  index_t experts;       // E
  index_t slots;         // K
  index_t tokens;        // tokens of the group
};

// What a balancer does, at compile time.
struct balancer_spec {
  bool logit_gradients = false;  // its loss pushes on the router's logits
};

// Concept Balancer
//
// Minimal definition:
//   static constexpr balancer_spec spec;
//   static constexpr const char* name;
//   M loss(balance_statistics<M>) const                         the loss of one balance group, its coefficient included
//   M d_mean_score(balance_statistics<M>, index_t i) const      its derivative to mean_scores[i], counts held fixed
//   M d_log_sum_exp(M lse) const                                the derivative of its part per token to logsumexp(l)
// All are templates on M, GRAFT_HOST_DEVICE, pure. The loss of a layer is the mean over its balance groups, the loss of
// a model the sum over its layers. A balancer object is trivially copyable.
//
// Models: no_balancer, switch_loss, z_loss, all<...>.
//
// Laws: the derivatives are those of loss; a loss over counts and scores is at its minimum at uniform routing; nothing
// depends on the order of tokens.
template <class B>
concept Balancer = requires {
  { B::spec } -> std::convertible_to<balancer_spec>;
  { B::name } -> std::convertible_to<const char*>;
}
&&std::is_trivially_copyable_v<B>&& requires(const B& balancer, const balance_statistics<double>& statistics, index_t i,
                                             double lse) {
  { balancer.loss(statistics) } -> std::same_as<double>;
  { balancer.d_mean_score(statistics, i) } -> std::same_as<double>;
  { balancer.d_log_sum_exp(lse) } -> std::same_as<double>;
};

// Usage: static_assert(graft::check_balancer<my_balancer>());
template <class B>
consteval bool check_balancer() {
  static_assert(
      requires {
        { B::spec } -> std::convertible_to<balancer_spec>;
      },
      "graft::check_balancer: the balancer has no static constexpr balancer_spec spec. Add one.");
  static_assert(
      requires {
        { B::name } -> std::convertible_to<const char*>;
      },
      "graft::check_balancer: the balancer has no static constexpr const char* name. Add one.");
  static_assert(std::is_trivially_copyable_v<B>,
                "graft::check_balancer: the balancer is not trivially copyable. Keep plain numbers in it, it travels "
                "to the device.");
  static_assert(
      requires(const B& b, const balance_statistics<double>& s) {
        { b.loss(s) } -> std::same_as<double>;
      },
      "graft::check_balancer: the balancer has no loss(balance_statistics<M>) const returning M. Add one, returning 0 "
      "if it has no loss.");
  static_assert(
      requires(const B& b, const balance_statistics<double>& s, index_t i) {
        { b.d_mean_score(s, i) } -> std::same_as<double>;
      },
      "graft::check_balancer: the balancer has no d_mean_score(balance_statistics<M>, index_t) const returning M. Add "
      "one.");
  static_assert(
      requires(const B& b, double lse) {
        { b.d_log_sum_exp(lse) } -> std::same_as<double>;
      },
      "graft::check_balancer: the balancer has no d_log_sum_exp(M) const returning M. Add one.");
  return true;
}

// No balancing.
struct no_balancer {
  static constexpr balancer_spec spec{};
  static constexpr const char* name = "none";

  template <class M>
  GRAFT_HOST_DEVICE M loss(const balance_statistics<M>&) const {
    return M(0);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_mean_score(const balance_statistics<M>&, index_t) const {
    return M(0);
  }
  template <class M>
  GRAFT_HOST_DEVICE M d_log_sum_exp(M) const {
    return M(0);
  }
};

}  // namespace graft
