// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Concept Router: which experts a token uses, and with what weight.

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <graft/core/host_device.hpp>
#include <graft/policies/archetypes.hpp>
#include <graft/policies/router/routing_pass.hpp>

namespace graft {

// What a router promises, at compile time. Balancers, layers and programs read it to accept or refuse a combination.
struct router_spec {
  int experts_per_token = 0;        // K: slots a token; at least 1
  bool weights_sum_to_one = false;  // over the filled slots of a token: identical experts then equal one dense FFN
  bool empty_slots = false;         // a token may fill fewer than K slots (expert -1, weight 0)
  bool logits = true;               // it reads logits; without them it has no gate and balancers cannot push on it
  bool logit_gradients = true;      // its weights have a gradient to the logits
  bool selection_bias = false;      // a bias may change its selection and nothing else (routing_token::selection_bias)
  bool causal = true;               // a token's experts do not depend on later tokens
  int extra_logits = 0;             // logits beyond one for each expert: 1 for a null logit
};

// Concept RowRouter: a token's experts follow from its own logits.
//
// Minimal definition:
//   static constexpr router_spec spec;
//   static constexpr const char* name;                                   // as programs and graft.json spell it
//   forward(group, const routing_token<M>& token, const M* logits, index_t experts, std::int32_t* selected,
//           M* weights) const
//       for one token: E + extra_logits logits in, K experts (-1: empty slot) and K weights (0 for an empty slot) out
//   backward(group, const routing_token<M>& token, const M* logits, index_t experts, const std::int32_t* selected,
//            const M* weights, const M* d_weights, M* d_logits) const
//       d_logits (E + extra_logits elements) is replaced by the gradient of the loss to the logits
// Both are templates on a Group (backend/rows.hpp) and on M (float or double), GRAFT_HOST_DEVICE, and neither
// allocates. The router object is trivially copyable: it travels to the device by value.
//
// Optional members:
//   gate            an object of a type of concept Gate (policies/gate/gate.hpp): how the logits come from the hidden
//                   state. Without it: linear_gate.
//   probabilities   an object, or a function that returns it, that gives balancers the probabilities of the experts
//                   (policies/router/probabilities.hpp). Without it: the softmax of the logits.
//   double slots_used(index_t layer, index_t experts) const    how many slots a token fills in a layer, on average, for
//                   counts of active parameters. Without it: K.
//   void check(index_t experts) const     throws graft::error where options or the number of experts do not fit.
//
// Models: everything in policies/router/ made by row_router<Score, Select, Weigh>; sample_top_1, hash_router.
//
// Laws (tests/laws/router_laws.hpp): d_logits is the derivative of sum_k d_weights[k] weights[k] where the selection
// does not change, with the noise of the forward pass; weights sum to one where spec says so; slots hold different
// experts; results do not depend on other tokens or on the order of tokens; ties go to the lower index; a selection
// bias is read where spec says so, and is in no weight; padding fills no slot; same bits twice.
template <class R>
concept has_router_spec = requires {
  { R::spec } -> std::convertible_to<router_spec>;
};
template <class R>
concept has_router_name = requires {
  { R::name } -> std::convertible_to<const char*>;
};
template <class R>
concept has_router_forward = requires(const R& router, detail::group_archetype& group,
                                      const routing_token<float>& token, const float* logits, index_t experts,
                                      std::int32_t* selected, float* weights) {
  router.forward(group, token, logits, experts, selected, weights);
};
template <class R>
concept has_router_backward = requires(const R& router, detail::group_archetype& group,
                                       const routing_token<float>& token, const float* logits, index_t experts,
                                       const std::int32_t* selected, const float* weights, const float* d_weights,
                                       float* d_logits) {
  router.backward(group, token, logits, experts, selected, weights, d_weights, d_logits);
};
template <class R>
concept PolicyWithSlots = has_router_spec<R> && has_router_name<R> && std::is_trivially_copyable_v<R> &&
    (R::spec.experts_per_token >= 1);
template <class R>
concept RowRouter = PolicyWithSlots<R> && has_router_forward<R> && has_router_backward<R>;

// Concept TableRouter: experts are chosen looking at all tokens of a pass at once (expert choice).
//
// Minimal definition: spec, name as above, and
//   static constexpr bool routes_tables = true;
//   route(context, routing_pass<M, Space> pass, selected (T, K), weights (T, K), logits (T, E)) const
//   route_backward(context, pass, d_logits (T, E), logits, selected, weights, d_weights) const      replaces d_logits
// Optional: index_t filled_rows(index_t tokens, index_t experts) const, an upper bound of the filled slots of a pass,
// below T K.
//
// Models: expert_choice<E>. Laws: as above but for the independence of other tokens; spec.causal tells.
template <class R>
concept TableRouter = PolicyWithSlots<R> && R::routes_tables;

template <class R>
concept Router = RowRouter<R> || TableRouter<R>;

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
  if constexpr (!TableRouter<R>) {
    static_assert(
        has_router_forward<R>,
        "graft::check_router: the router has no forward(group, token, logits, experts, selected, weights) const. Add "
        "one.");
    static_assert(has_router_backward<R>,
                  "graft::check_router: the router has no backward(group, token, logits, experts, selected, weights, "
                  "d_weights, d_logits) const. Add one.");
  }
  return true;
}

namespace detail {

// How many slots of K a token fills in a layer.
template <class R>
constexpr double slots_used(const R& router, index_t layer, index_t experts) {
  if constexpr (requires { router.slots_used(layer, experts); })
    return router.slots_used(layer, experts);
  else
    return R::spec.experts_per_token;
}

// Errors: the router's own, where its options or the number of experts do not fit.
template <class R>
void check_experts(const R& router, index_t experts) {
  if constexpr (requires { router.check(experts); }) router.check(experts);
}

// An upper bound of the filled slots of a pass.
template <class R>
index_t filled_rows(const R& router, index_t tokens, index_t experts) {
  if constexpr (requires { router.filled_rows(tokens, experts); })
    return router.filled_rows(tokens, experts);
  else
    return tokens * R::spec.experts_per_token;
}

}  // namespace detail

}  // namespace graft
