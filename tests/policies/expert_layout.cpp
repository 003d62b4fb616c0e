// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Layouts of experts: the laws for every model, and which slots a full expert drops.

#include "catch.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <graft/policies/expert_layout/capacity.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/expert_layout/shared_routed.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>

#include "laws/expert_layout_laws.hpp"

namespace expert_layout_tests {

using namespace graft;
using namespace graft::test;

namespace {

using by_probability = capacity<routed, drop_by::probability>;
using gated = shared_routed<shared_expert_mode::sigmoid_gated>;
using averaged_by_probability = shared_routed<shared_expert_mode::averaged, by_probability>;

static_assert(routed::spec.dropless && routed::spec.causal);
static_assert(!capacity<>::spec.dropless && capacity<>::spec.causal);
static_assert(!by_probability::spec.causal && !pad_to_capacity<by_probability>::spec.causal);
static_assert(capacity<gated>::spec.shared == shared_expert_mode::sigmoid_gated);
static_assert(capacity<routed_experts<5>>::spec.experts == 5);

// By hand: the slots of an expert in line, all but the first C dropped.
std::vector<bool> kept_by_hand(const routing_table& table, index_t room, drop_by rule) {
  std::vector<bool> kept(table.selected.values.size(), false);
  for (index_t e = 0; e < table.experts; ++e) {
    std::vector<std::size_t> line;
    for (std::size_t slot = 0; slot < kept.size(); ++slot)
      if (table.selected.values[slot] == e) line.push_back(slot);
    if (rule == drop_by::probability)
      std::stable_sort(line.begin(), line.end(),
                       [&](std::size_t a, std::size_t b) { return table.weights.values[a] > table.weights.values[b]; });
    for (std::size_t i = 0; i < line.size() && static_cast<index_t>(i) < room; ++i) kept[line[i]] = true;
  }
  return kept;
}

}  // namespace

TEMPLATE_TEST_CASE("expert_layout: the laws of expert layouts", "[policies]", routed, routed_experts<5>, capacity<>,
                   by_probability, pad_to_capacity<capacity<>>, pad_to_capacity<by_probability>, gated, capacity<gated>,
                   averaged_by_probability, adapted, lora, capacity<lora>) {
  expert_layout_laws(TestType{});
}

TEST_CASE("expert_layout: laws at other capacity factors", "[policies]") {
  for (const double factor : {0.01, 0.5, 1.0, 3.0}) {
    CAPTURE(factor);
    expert_layout_laws(capacity<>{.factor = factor});
    expert_layout_laws(by_probability{.factor = factor});
    expert_layout_laws(pad_to_capacity<capacity<>>{.base = {.factor = factor}});
  }
}

TEST_CASE("expert_layout: names tell layouts apart", "[policies]") {
  CHECK(std::string(routed::name) == "routed");
  CHECK(std::string(capacity<>::name) == "capacity");
  CHECK(std::string(by_probability::name) == "capacity_by_probability");
  CHECK(std::string(pad_to_capacity<capacity<>>::name) == "capacity+padded");
  CHECK(std::string(gated::name) == "shared_gated");
  CHECK(std::string(shared_routed<>::name) == "shared");
  CHECK(std::string(capacity<shared_routed<shared_expert_mode::averaged>>::name) == "shared_averaged+capacity");
}

TEST_CASE("expert_layout: the capacity of an expert", "[policies]") {
  CHECK(expert_capacity(1.25, 64, 8, 32) == 10);
  CHECK(expert_capacity(1.0, 64, 7, 32) == 10);    // ceil(9.14)
  CHECK(expert_capacity(1.0, 3, 8, 3) == 1);       // one place where there are fewer slots than experts
  CHECK(expert_capacity(100.0, 64, 8, 32) == 32);  // more than every token is no use
  CHECK(expert_capacity(1e300, 64, 8, 32) == 32);
  CHECK_THROWS_WITH(expert_capacity(0.0, 64, 8, 32), "expert_capacity: expected a capacity factor above 0, got 0");
  CHECK_THROWS_AS(expert_capacity(-1.0, 64, 8, 32), error);
}

TEST_CASE("expert_layout: a full expert drops by position or by probability", "[policies]") {
  context<cpu> ctx({.threads = 1});
  for (const double factor : {0.2, 0.4, 0.7}) {
    const routing_table table = routing_table::random(60, 3, 7, 5, true, 11);
    const index_t room = expert_capacity(factor, 180, 7, 60);
    CAPTURE(factor, room);
    const std::vector<bool> by_slot = kept_by_hand(table, room, drop_by::position);
    const std::vector<bool> by_weight = kept_by_hand(table, room, drop_by::probability);
    REQUIRE(by_slot != by_weight);  // the case tells them apart
    CHECK(kept_slots(dispatch_of(ctx, capacity<>{.factor = factor}, table)) == by_slot);
    CHECK(kept_slots(dispatch_of(ctx, by_probability{.factor = factor}, table)) == by_weight);
    CHECK(kept_slots(dispatch_of(ctx, pad_to_capacity<by_probability>{.base = {.factor = factor}}, table)) ==
          by_weight);
  }
}

TEST_CASE("expert_layout: a plan with drops, by hand", "[policies]") {
  context<cpu> ctx({.threads = 1});
  routing_table table{3, tensor<std::int32_t>(4, 2), tensor<float>(4, 2)};
  table.selected.values = {0, 1, 0, -1, 0, 2, 0, 1};
  table.weights.values = {0.5f, 0.5f, 0.9f, 0, 0.5f, 0.5f, 0.8f, 0.2f};
  // C = ceil(0.75 * 8 / 3) = 2; four slots want expert 0.
  const dispatched first = dispatch_of(ctx, capacity<>{.factor = 0.75}, table);
  CHECK(first.offsets == std::vector<std::int32_t>{0, 2, 4, 5});
  CHECK(first.row_of_slot == std::vector<std::int32_t>{0, 2, 1, -1, -1, 4, -1, 3});
  CHECK(first.load.back() == 2.5f);  // 0.5 was there
  // The largest weights are those of slots 2 and 6; rows stand by slot all the same.
  const dispatched best = dispatch_of(ctx, by_probability{.factor = 0.75}, table);
  CHECK(best.row_of_slot == std::vector<std::int32_t>{-1, 2, 0, -1, -1, 4, 1, 3});
  const dispatched padded = dispatch_of(ctx, pad_to_capacity<capacity<>>{.base = {.factor = 0.75}}, table);
  CHECK(padded.offsets == std::vector<std::int32_t>{0, 2, 4, 6});
  CHECK(padded.slot_of_row == std::vector<std::int32_t>{0, 2, 1, 7, 5, -1});
  CHECK(padded.row_of_slot == first.row_of_slot);
}

TEST_CASE("expert_layout: with room for every token nothing is dropped and the plan is the dropless one",
          "[policies]") {
  context<cpu> ctx({.threads = 1});
  const routing_table table = routing_table::random(40, 2, 6, 3, true, 5);
  const dispatched want = dispatch_of(ctx, routed{}, table);
  const dispatched got = dispatch_of(ctx, capacity<>{.factor = 3}, table);
  CHECK(got.offsets == want.offsets);
  CHECK(got.row_of_slot == want.row_of_slot);
  CHECK(got.load == want.load);
}

TEST_CASE("expert_layout: options are found through the layouts in between", "[policies]") {
  pad_to_capacity<capacity<gated>> layout;
  set_option(layout, "factor", 2.0);
  CHECK(layout.base.factor == 2.0);
}

}  // namespace expert_layout_tests
