// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The routers of graft keep the laws of routers, and each computes its equation.

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

#include "laws/router_laws.hpp"

using namespace graft;
using namespace graft::test;

namespace {

// The gates of methods that use the softmax as it is: top-1 (Switch), top-2 (OLMoE), all (soft).
template <int K>
struct softmax_top : row_router<softmax_score, select_top<K>, selected_score> {
  static constexpr const char* name = "softmax_top";
};
// Renormalised over the kept.
template <int K>
struct softmax_over_softmax : row_router<softmax_score, select_top<K>, softmax_over_selected> {
  static constexpr const char* name = "softmax_over_softmax";
};
template <int K>
struct logit_top : row_router<logit_score, select_top<K>, selected_score> {
  static constexpr const char* name = "logit_top";
};

static_assert(top_k<2>::spec.experts_per_token == 2 && top_k<2>::spec.weights_sum_to_one &&
              top_k<2>::spec.logit_gradients && top_k<2>::spec.causal && !top_k<2>::spec.selection_bias);
static_assert(!softmax_top<2>::spec.weights_sum_to_one);
static_assert(Router<top_k<1>> && Router<softmax_top<3>> && !Router<int>);

}  // namespace

TEMPLATE_TEST_CASE("router: top_k keeps the laws", "[policies]", top_k<1>, top_k<2>, top_k<4>, top_k<5>) {
  router_laws(TestType{});
}

TEMPLATE_TEST_CASE("router: other rows of scores and weights keep the laws", "[policies]", softmax_top<1>,
                   softmax_top<2>, softmax_over_softmax<2>, logit_top<2>) {
  router_laws(TestType{});
}

// g = softmax(TopK(l)), largest first, by sorting.
TEST_CASE("router: top_k against a naive gate", "[policies]") {
  constexpr int slots = 3;
  serial_group group;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<double> logits = test::detail::normal_values<double>(11, seed);
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    double sum = 0;
    for (int k = 0; k < slots; ++k)
      sum += std::exp(logits[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])]);
    const auto token = route_one(top_k<slots>{}, group, logits);
    for (std::size_t k = 0; k < slots; ++k) {
      CHECK(token.selected[k] == order[k]);
      // A handful of operations on numbers of about 1.
      CHECK(std::abs(token.weights[k] - std::exp(logits[static_cast<std::size_t>(order[k])]) / sum) <= 16 * 0x1p-53);
    }
  }
}

TEST_CASE("router: softmax scores against a naive softmax, kept as they are", "[policies]") {
  serial_group group;
  const std::vector<double> logits = {0.25, -1.5, 2.0, 0.75, 2.0};
  const auto token = route_one(softmax_top<2>{}, group, logits);
  double sum = 0;
  for (const double l : logits) sum += std::exp(l);
  CHECK(token.selected == std::vector<std::int32_t>{2, 4});
  for (const double weight : token.weights) CHECK(std::abs(weight - std::exp(2.0) / sum) <= 16 * 0x1p-53);

  // Experts that were not selected receive gradient all the same.
  const auto d_logits = route_one_backward(softmax_top<2>{}, group, logits, token, {1.0, 0.0});
  for (const double d : d_logits) CHECK(d != 0);
  // With softmax over the kept they receive none.
  const auto kept = route_one(top_k<2>{}, group, logits);
  const auto d_kept = route_one_backward(top_k<2>{}, group, logits, kept, {1.0, 0.0});
  CHECK(d_kept[0] == 0);
  CHECK(d_kept[1] == 0);
  CHECK(d_kept[3] == 0);
  CHECK(d_kept[2] > 0);
  CHECK(d_kept[4] < 0);
}

TEST_CASE("router: top_k of one gives weight 1 and no gradient", "[policies]") {
  serial_group group;
  const std::vector<float> logits = {0.1f, 3.0f, -2.0f};
  const auto token = route_one(top_k<1>{}, group, logits);
  CHECK(token.selected == std::vector<std::int32_t>{1});
  CHECK(token.weights == std::vector<float>{1.0f});
  for (const float d : route_one_backward(top_k<1>{}, group, logits, token, {5.0f})) CHECK(d == 0.0f);
}

TEST_CASE("expert layout: routed takes its number of experts from the shape or fixes it", "[policies]") {
  transformer_shape shape{.hidden = 12, .experts = 5};
  static_assert(check_expert_layout<routed>() && check_expert_layout<routed_experts<3>>() && !ExpertLayout<int>);
  static_assert(routed::spec.experts == dynamic_experts && routed_experts<3>::spec.experts == 3 &&
                routed::spec.dropless);
  CHECK(routed{}.experts(shape) == 5);
  CHECK(routed{}.hidden(shape) == 12);
  CHECK(routed_experts<3>{}.experts(shape) == 3);

  // A dropless plan has one row for every filled slot, sorted by expert, ties by slot. Expert 1 has no token, slot 3 is
  // empty.
  context<cpu> ctx({.threads = 1});
  const std::vector<std::int32_t> slots = {2, 0, 0, -1, 4, 2};
  const auto plan = routed{}.dispatch(ctx, vector_view<const std::int32_t>(slots.data(), 6), 5, 2);
  CHECK(std::vector<std::int32_t>(plan.offsets.data, plan.offsets.data + 6) ==
        std::vector<std::int32_t>{0, 2, 2, 4, 4, 5});
  CHECK(std::vector<std::int32_t>(plan.slot_of_row.data, plan.slot_of_row.data + 6) ==
        std::vector<std::int32_t>{1, 2, 0, 5, 4, -1});
  CHECK(std::vector<std::int32_t>(plan.row_of_slot.data, plan.row_of_slot.data + 6) ==
        std::vector<std::int32_t>{2, 0, 1, -1, 4, 3});
  CHECK(*plan.row_count() == 5);
}

// A mask of minus infinity must not make two slots hold one expert.
TEST_CASE("router: slots hold different experts where scores are minus infinity", "[policies]") {
  serial_group group;
  const double none = -std::numeric_limits<double>::infinity();
  const std::vector<double> logits{none, none, 1.0, none};
  std::int32_t selected[3];
  double weights[3];
  top_k<3>{}.forward(group, logits.data(), 4, selected, weights);
  CHECK((selected[0] == 2 && selected[1] == 0 && selected[2] == 1));
  CHECK((weights[0] == 1.0 && weights[1] == 0.0 && weights[2] == 0.0));
}
