// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// expert_choice<E>: experts choose tokens, not tokens experts.

#include <cmath>
#include <cstdint>
#include <limits>
#include <tuple>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/error.hpp>
#include <graft/ops/operands.hpp>
#include <graft/policies/gate/linear_gate.hpp>
#include <graft/policies/options.hpp>
#include <graft/policies/router/probabilities.hpp>
#include <graft/policies/router/router.hpp>

namespace graft {

namespace detail {

// keys(set E + e, position in the set) = the token's score for expert e; NaN, which sorts last, for padding. Empties
// the token's slots.
template <class M, class Space>
struct expert_choice_keys_row {
  view<M, 2, Space> keys;                 // (sets E, n)
  view<std::int32_t, 2, Space> selected;  // (T, E)
  view<M, 2, Space> weights;              // (T, E)
  view<const M, 2, Space> logits;         // (T, E)
  routing_pass<M, Space> pass;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const index_t experts = logits.extent(1), set = token / keys.extent(1), at = token % keys.extent(1);
    const auto scores = softmax_row<M>::over(group, logits.row(token), experts);
    const bool padding = pass.padding(token);
    group.for_each(experts, [&](index_t e) {
      keys(set * experts + e, at) = padding ? static_cast<M>(NAN) : scores(e);
      selected(token, e) = -1;
      weights(token, e) = 0;
    });
  }
};

// Element j of expert row r: the expert takes its j-th token.
template <class M, class Space>
struct expert_choice_take {
  view<std::int32_t, 2, Space> selected;
  view<M, 2, Space> weights;
  view<const M, 2, Space> keys;
  view<const std::int32_t, 2, Space> order;  // (sets E, n)
  routing_pass<M, Space> pass;
  index_t taken;  // C

  GRAFT_HOST_DEVICE void operator()(index_t element) const {
    const index_t row = element / taken, experts = selected.extent(1), e = row % experts;
    const index_t at = order(row, element % taken), token = row / experts * keys.extent(1) + at;
    if (pass.padding(token)) return;
    selected(token, e) = static_cast<std::int32_t>(e);
    weights(token, e) = keys(row, at);
  }
};

// dl_j = s_j (ds_j - sum_i s_i ds_i), ds = 0 for experts that did not take the token.
template <class M, class Space>
struct expert_choice_backward_row {
  view<M, 2, Space> d_logits;
  view<const M, 2, Space> logits;
  view<const std::int32_t, 2, Space> selected;
  view<const M, 2, Space> d_weights;
  routing_pass<M, Space> pass;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t token) const {
    const index_t experts = logits.extent(1);
    const bool padding = pass.padding(token);
    const auto scores = softmax_row<M>::over(group, logits.row(token), experts);
    const auto d_score = [&](index_t e) { return selected(token, e) < 0 ? M(0) : d_weights(token, e); };
    const M mean = group.sum(experts, [&](index_t e) { return scores(e) * d_score(e); });
    group.for_each(experts, [&](index_t e) { d_logits(token, e) = padding ? M(0) : scores(e) * (d_score(e) - mean); });
  }
};

}  // namespace detail

// s = softmax(l) over the experts;  each expert takes the C tokens with the largest s of its own,  C = floor(n c / E),
// of every n tokens;  g = s. Ties go to the earlier token. A token has the experts that took it: none or all E.
// n is a sequence, or with `grouped` the whole pass. c, `capacity_factor`, is how many experts a token has on average.
// Every expert works for the same number of tokens, so that no balancer is needed. Padding is never taken: of a set
// with fewer than C tokens an expert takes all.
// Not causal: tokens compete with later ones, and with `grouped` also with other sequences. Losses of a model trained
// so are too good, and it cannot generate: for training and for encoders.
// Slots: K = E, slot e is expert e or empty. E must be the layer's number of experts.
// Cost: a sort of T E scores. Memory: tables of T E in place of T K.
// Source: Zhou et al., "Mixture-of-experts with expert choice routing", 2022, arXiv 2202.09368; c = 2 there. For
// n = a sequence: Muennighoff et al., "OLMoE", 2024, arXiv 2409.02060.
template <int E>
struct expert_choice {
  static_assert(E >= 1, "graft::expert_choice: E is below 1. A layer needs at least one expert.");
  static constexpr router_spec spec{.experts_per_token = E, .empty_slots = true, .causal = false};
  static constexpr const char* name = "expert_choice";
  static constexpr bool routes_tables = true;
  static constexpr auto options() {
    return std::tuple(option("capacity_factor", &expert_choice::capacity_factor),
                      option("grouped", &expert_choice::grouped));
  }

  linear_gate gate{};
  double capacity_factor = 2;
  bool grouped = false;

  // C of n tokens.
  index_t tokens_per_expert(index_t n) const {
    return static_cast<index_t>(std::floor(static_cast<double>(n) * capacity_factor / E));
  }
  double slots_used(index_t, index_t) const { return capacity_factor; }
  index_t filled_rows(index_t tokens, index_t experts) const {
    const auto filled = static_cast<index_t>(std::floor(static_cast<double>(tokens) * capacity_factor));
    return filled < tokens * experts ? filled : tokens * experts;
  }

  // Errors: another number of experts than E; capacity_factor outside (0, E].
  void check(index_t experts) const {
    GRAFT_CHECK(experts == E, "expert_choice: expected as many experts as slots, got slots=", E, ", experts=", experts);
    GRAFT_CHECK(capacity_factor > 0 && capacity_factor <= E,
                "expert_choice: expected 0 < capacity_factor <= experts, got capacity_factor=", capacity_factor,
                ", experts=", experts);
  }

  // Errors: those of check; fewer tokens than give each expert one.
  template <class Context, class M>
  void route(Context& context, const routing_pass<M, typename Context::space>& pass,
             view<std::int32_t, 2, typename Context::space> selected, matrix_of<Context, M> weights,
             const_matrix_of<Context, M> logits) const {
    using space = typename Context::space;
    check(pass.experts);
    const index_t tokens = selected.extent(0), n = grouped ? tokens : pass.positions;
    GRAFT_CHECK(n >= 1 && tokens % n == 0, "expert_choice: expected whole sequences, got ", tokens,
                " tokens of sequences of ", n);
    const index_t taken = tokens_per_expert(n);
    GRAFT_CHECK(taken >= 1, "expert_choice: expected enough tokens to give each expert one, got ", n, " tokens, ", E,
                " experts and capacity_factor=", capacity_factor);
    workspace_scope scope(context);
    const index_t rows = tokens / n * E;
    auto keys = context.template allocate<M>(rows, n);
    auto order = context.template allocate<std::int32_t>(rows, n);
    launch_rows(context, tokens, E, detail::expert_choice_keys_row<M, space>{keys, selected, weights, logits, pass});
    argsort_rows(context, order, keys);
    launch_elements(context, rows * taken,
                    detail::expert_choice_take<M, space>{selected, weights, keys, order, pass, taken});
  }

  template <class Context, class M>
  void route_backward(Context& context, const routing_pass<M, typename Context::space>& pass,
                      matrix_of<Context, M> d_logits, const_matrix_of<Context, M> logits,
                      view<const std::int32_t, 2, typename Context::space> selected, const_matrix_of<Context, M>,
                      const_matrix_of<Context, M> d_weights) const {
    launch_rows(
        context, logits.extent(0), E,
        detail::expert_choice_backward_row<M, typename Context::space>{d_logits, logits, selected, d_weights, pass});
  }
};

}  // namespace graft
