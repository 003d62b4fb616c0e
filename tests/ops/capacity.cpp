// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Expert capacity: who keeps a place, and padded plans, which must give what compact ones give. Plans as a whole stand
// in tests/policies/expert_layout.cpp.

#include "catch.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/capacity.hpp>

#include "reference.hpp"
#include "shuffled_context.hpp"

namespace capacity_tests {

using namespace graft;
using namespace graft::test;

namespace {

using slots_type = std::vector<std::int32_t>;

template <class M>
slots_type kept(const slots_type& experts_of_slots, std::vector<M> priorities, index_t experts, index_t capacity,
                M* dropped = nullptr) {
  context<cpu> ctx({.threads = 1});
  slots_type result(experts_of_slots.size(), 77), slots = experts_of_slots;
  const auto count = static_cast<index_t>(slots.size());
  keep_within_capacity(ctx, vector_view<std::int32_t>(result.data(), count),
                       vector_view<const std::int32_t>(slots.data(), count),
                       priorities.empty() ? vector_view<M>{} : vector_view<M>(priorities.data(), count), experts,
                       capacity, dropped == nullptr ? vector_view<M>{} : vector_view<M>(dropped, 1));
  return result;
}

// Two experts with room for three each, more slots than that, some empty.
template <class T>
struct padded_case {
  static constexpr index_t tokens = 6, slots = 2, experts = 3, width = 21, capacity = 3;
  slots_type experts_of_slots{0, 2, 0, -1, 2, 0, 0, 2, -1, -1, 2, 0}, kept_slots;
  tensor<T> x = tensor<T>::random(tokens, width, 1), d_out = tensor<T>::random(tokens, width, 3);
  tensor<accumulator_t<T>> weights = tensor<accumulator_t<T>>::random(tokens, slots, 5);

  padded_case() : kept_slots(kept<float>(experts_of_slots, {}, experts, capacity)) {}
};

// rows: gathered, with what backward makes of them; the rest as in a layer whose experts do nothing.
template <class T>
struct padded_result {
  tensor<T> gathered, combined, d_rows, d_x;
  tensor<accumulator_t<T>> d_weights;
};

template <class T, class Context>
padded_result<T> run(Context& ctx, const padded_case<T>& c, const dispatch_plan<host_space>& plan) {
  padded_result<T> r;
  r.gathered = r.d_rows = tensor<T>(plan.rows(), c.width, 6);
  r.combined = r.d_x = tensor<T>(c.tokens, c.width, 6);
  r.d_weights = tensor<accumulator_t<T>>(c.tokens, c.slots, 6);
  gather_tokens(ctx, r.gathered.matrix(), c.x.matrix(), plan);
  combine_rows(ctx, r.combined.matrix(), r.gathered.matrix(), c.weights.matrix(), plan, accumulate::no);
  combine_rows_backward(ctx, r.d_rows.matrix(), r.d_weights.matrix(), c.d_out.matrix(), r.gathered.matrix(),
                        c.weights.matrix(), plan);
  combine_rows(ctx, r.d_x.matrix(), r.d_rows.matrix(), {}, plan, accumulate::no);
  return r;
}

}  // namespace

TEST_CASE("capacity: the first in line keep their places", "[ops]") {
  const slots_type slots{1, 0, 1, -1, 1, 0, 1, 3};
  float dropped = 0.5f;
  CHECK(kept<float>(slots, {}, 4, 2, &dropped) == slots_type{1, 0, 1, -1, -1, 0, -1, 3});
  CHECK(dropped == 2.5f);
  CHECK(kept<float>(slots, {}, 4, 4) == slots);
  CHECK(kept<float>(slots, {}, 4, 1) == slots_type{1, 0, -1, -1, -1, -1, -1, 3});
  CHECK(kept<float>(slots_type(5, -1), {}, 4, 1, &dropped) == slots_type(5, -1));
  CHECK(dropped == 2.5f);
}

TEMPLATE_TEST_CASE("capacity: by priority, ties to the lower slot", "[ops]", float, double) {
  const slots_type slots{1, 0, 1, -1, 1, 0, 1, 3};
  TestType dropped = 0;
  // The empty slot's priority means nothing.
  CHECK(kept<TestType>(slots, {0.25, 0.5, 0.5, 9, 0.5, 0.75, 0.5, 0}, 4, 2, &dropped) ==
        slots_type{-1, 0, 1, -1, 1, 0, -1, 3});
  CHECK(dropped == 2);
  CHECK(kept<TestType>(slots, {0.25, 0.5, 0.5, 9, 0.5, 0.75, 1, 0}, 4, 1) == slots_type{-1, -1, -1, -1, -1, 0, 1, 3});
  // A weight that is no number has the last place.
  const TestType none = std::numeric_limits<TestType>::quiet_NaN();
  CHECK(kept<TestType>(slots, {none, 0.5, -1, 9, 0, 0.75, -2, 0}, 4, 3) == slots_type{-1, 0, 1, -1, 1, 0, 1, 3});
}

TEMPLATE_TEST_CASE("capacity: a padded plan gives the bits of the compact one, and zeros in the padding", "[ops]",
                   double, float, bfloat16) {
  context<cpu> ctx({.threads = 1});
  shuffled_context shuffled(4);
  const padded_case<TestType> c;
  workspace_scope scope(ctx);
  const vector_view<const std::int32_t> all(c.experts_of_slots.data(), c.tokens * c.slots),
      kept_view(c.kept_slots.data(), c.tokens * c.slots);
  const auto compact = make_dispatch_plan(ctx, kept_view, c.experts, c.slots);
  const auto padded = pad_dispatch_plan(ctx, compact, all, c.capacity);
  REQUIRE(slots_type(padded.offsets.data, padded.offsets.data + 4) == slots_type{0, 3, 6, 9});
  REQUIRE(*compact.row_count() == 6);
  REQUIRE(c.kept_slots != c.experts_of_slots);  // something is dropped
  const padded_result<TestType> want = run(ctx, c, compact);
  for (const bool shuffle : {false, true}) {
    const padded_result<TestType> got = shuffle ? run(shuffled, c, padded) : run(ctx, c, padded);
    CHECK(same_bits(got.combined, want.combined));
    CHECK(same_bits(got.d_x, want.d_x));
    // A dot product of a shuffled group adds up in another order.
    if (!shuffle) CHECK(same_bits(got.d_weights, want.d_weights));
    for (index_t row = 0; row < padded.rows(); ++row)
      for (index_t i = 0; i < c.width; ++i) {
        if (padded.slot_of_row[row] < 0) {
          REQUIRE(got.gathered.at(row, i) == 0);
          REQUIRE(got.d_rows.at(row, i) == 0);
        } else {
          REQUIRE(got.gathered.at(row, i) == c.x.at(padded.slot_of_row[row] / c.slots, i));
        }
      }
    // Slots that were dropped give nothing and get nothing.
    for (index_t slot = 0; slot < c.tokens * c.slots; ++slot)
      if (c.kept_slots[static_cast<std::size_t>(slot)] < 0)
        REQUIRE(got.d_weights.at(slot / c.slots, slot % c.slots) == 0);
  }
}

}  // namespace capacity_tests
