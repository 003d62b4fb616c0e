// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Concept Router: which experts a token uses, and with what weight.

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <graft/backend/rows.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

namespace detail {

// A group that is declared and nothing more: with it concepts ask whether a row function takes a group.
struct group_archetype {
  template <class F>
  void for_each(index_t n, const F& f);
  template <class F, class Op, class T>
  T reduce(index_t n, const F& f, const Op& op, T identity);
  template <class F>
  auto sum(index_t n, const F& f) -> std::remove_cvref_t<std::invoke_result_t<const F&, index_t>>;
  template <class F>
  auto max(index_t n, const F& f) -> std::remove_cvref_t<std::invoke_result_t<const F&, index_t>>;
  template <class F>
  auto argmax(index_t n, const F& f) -> indexed_value<std::remove_cvref_t<std::invoke_result_t<const F&, index_t>>>;
  template <class F>
  void single(const F& f);
  void sync();
};
static_assert(Group<group_archetype>);

}  // namespace detail

// What a router promises, at compile time. Balancers, layers and programs read it to accept or refuse a combination.
struct router_spec {
  int experts_per_token = 0;        // K: slots a token; at least 1
  bool weights_sum_to_one = false;  // over the filled slots of a token: identical experts then equal one dense FFN
  bool logit_gradients = true;      // the router has logits and balancers may push on them
  bool selection_bias = false;      // a bias that changes the selection and nothing else
  bool causal = true;               // a token's experts do not depend on later tokens
};

// Concept Router
//
// Minimal definition:
//   static constexpr router_spec spec;
//   static constexpr const char* name;                                   // as programs and graft.json spell it
//   forward(group, const M* logits, index_t experts, std::int32_t* selected, M* weights) const
//       for one token: E logits in, K experts (-1: empty slot) and K weights out
//   backward(group, const M* logits, index_t experts, const std::int32_t* selected, const M* weights,
//            const M* d_weights, M* d_logits) const
//       d_logits (E elements) is replaced by the gradient of the loss to the logits
// Both are templates on a Group (backend/rows.hpp) and on M (float or double), GRAFT_HOST_DEVICE, and neither
// allocates. The router object is trivially copyable: it travels to the device by value.
//
// Models: top_k<K>; anything made by row_router<Score, Select, Weigh>.
//
// Laws: d_logits is the derivative of sum_k d_weights[k] weights[k] where the selection does not change; weights sum to
// one where spec says so; slots hold different experts; results do not depend on other tokens or on the order of
// tokens; ties go to the lower index; same bits twice.
template <class R>
concept has_router_spec = requires {
  { R::spec } -> std::convertible_to<router_spec>;
};
template <class R>
concept has_router_name = requires {
  { R::name } -> std::convertible_to<const char*>;
};
template <class R>
concept has_router_forward = requires(const R& router, detail::group_archetype& group, const float* logits,
                                      index_t experts, std::int32_t* selected, float* weights) {
  router.forward(group, logits, experts, selected, weights);
};
template <class R>
concept has_router_backward = requires(const R& router, detail::group_archetype& group, const float* logits,
                                       index_t experts, const std::int32_t* selected, const float* weights,
                                       const float* d_weights, float* d_logits) {
  router.backward(group, logits, experts, selected, weights, d_weights, d_logits);
};
template <class R>
concept Router = has_router_spec<R> && has_router_name<R> && std::is_trivially_copyable_v<R> &&
                 (R::spec.experts_per_token >= 1) &&
                 has_router_forward<R>&& has_router_backward<R>;

// One sentence for each missing piece. Usage: static_assert(graft::check_router<my_router>());
template <class R>
consteval bool check_router() {
  static_assert(has_router_spec<R>,
                "graft::check_router: the router has no static constexpr router_spec spec. Add one.");
  static_assert(has_router_name<R>,
                "graft::check_router: the router has no static constexpr const char* name. Add one.");
  static_assert(
      std::is_trivially_copyable_v<R>,
      "graft::check_router: the router is not trivially copyable. Keep plain numbers in it, it travels to the device.");
  if constexpr (has_router_spec<R>)
    static_assert(R::spec.experts_per_token >= 1,
                  "graft::check_router: spec.experts_per_token is below 1. Set it to K.");
  static_assert(
      has_router_forward<R>,
      "graft::check_router: the router has no forward(group, logits, experts, selected, weights) const. Add one.");
  static_assert(has_router_backward<R>,
                "graft::check_router: the router has no backward(group, logits, experts, selected, weights, d_weights, "
                "d_logits) const. Add one.");
  return true;
}

}  // namespace graft
