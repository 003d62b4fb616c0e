// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/permutation.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace permutation_tests {

using namespace graft;
using namespace graft::test;

namespace {

tensor<std::int32_t> integers(const std::vector<std::int32_t>& values) {
  tensor<std::int32_t> result;
  result.rows = 1, result.columns = static_cast<index_t>(values.size());
  result.values = values;
  return result;
}

// K slots a token over experts 0 ... experts-2: the last expert gets no row. Some slots are empty, and a token may name
// an expert twice.
tensor<std::int32_t> make_slots(index_t tokens, index_t slots, index_t experts) {
  std::vector<std::int32_t> values;
  const random_source source{21, random_stream::data};
  const auto choices = static_cast<std::uint64_t>(experts > 1 ? experts : 2);  // -1 among them
  for (index_t s = 0; s < tokens * slots; ++s)
    values.push_back(static_cast<std::int32_t>(source.below(choices, 0, static_cast<std::uint64_t>(s))) - 1);
  return integers(values);
}

template <class T>
struct mix_case {
  using M = accumulator_t<T>;
  index_t tokens, slots, experts, width;
  tensor<std::int32_t> expert_of_slot;
  tensor<T> x, outputs, d_out, before;
  tensor<M> weights;

  mix_case(index_t t, index_t k, index_t e, index_t d)
      : tokens(t),
        slots(k),
        experts(e),
        width(d),
        expert_of_slot(make_slots(t, k, e)),
        x(tensor<T>::random(t, d, 1)),
        outputs(tensor<T>::random(t * k, d, 2)),
        d_out(tensor<T>::random(t, d, 3)),
        before(tensor<T>::random(t, d, 4)),
        weights(tensor<M>::random(t, k, 5)) {}
};

template <class T>
struct mix_result {
  using M = accumulator_t<T>;
  tensor<T> gathered, combined, added, unweighted, d_rows;
  tensor<M> d_weights;
  std::vector<std::int32_t> offsets, slot_of_row, row_of_slot;

  bool operator==(const mix_result& o) const {
    return same_bits(gathered, o.gathered) && same_bits(combined, o.combined) && same_bits(added, o.added) &&
           same_bits(unweighted, o.unweighted) && same_bits(d_rows, o.d_rows) && same_bits(d_weights, o.d_weights) &&
           offsets == o.offsets && slot_of_row == o.slot_of_row && row_of_slot == o.row_of_slot;
  }
};

std::vector<std::int32_t> values_of(const view<std::int32_t, 1>& v) { return {v.data, v.data + v.extent(0)}; }

template <class T, class Context>
mix_result<T> run(Context& ctx, const mix_case<T>& c) {
  workspace_scope scope(ctx);
  const auto plan = make_dispatch_plan(ctx, c.expert_of_slot.vector(), c.experts, c.slots);
  mix_result<T> r;
  r.offsets = values_of(plan.offsets), r.slot_of_row = values_of(plan.slot_of_row),
  r.row_of_slot = values_of(plan.row_of_slot);
  CHECK(plan.experts() == c.experts);
  CHECK(*plan.row_count() == r.offsets.back());
  r.gathered = r.d_rows = tensor<T>(c.tokens * c.slots, c.width, 6);
  r.combined = r.unweighted = tensor<T>(c.tokens, c.width, 6);
  r.added = c.before;
  r.d_weights = tensor<accumulator_t<T>>(c.tokens, c.slots, 6);
  gather_tokens(ctx, r.gathered.matrix(), c.x.matrix(), plan);
  combine_rows(ctx, r.combined.matrix(), c.outputs.matrix(), c.weights.matrix(), plan, accumulate::no);
  combine_rows(ctx, r.added.matrix(), c.outputs.matrix(), c.weights.matrix(), plan, accumulate::yes);
  combine_rows(ctx, r.unweighted.matrix(), c.outputs.matrix(), {}, plan, accumulate::no);
  combine_rows_backward(ctx, r.d_rows.matrix(), r.d_weights.matrix(), c.d_out.matrix(), c.outputs.matrix(),
                        c.weights.matrix(), plan);
  return r;
}

template <class T>
void check_values(const mix_case<T>& c, const mix_result<T>& r) {
  using M = accumulator_t<T>;
  // The plan: go through the experts, and for each through the slots.
  std::vector<std::int32_t> offsets, slot_of_row, row_of_slot(static_cast<std::size_t>(c.tokens * c.slots), -1);
  for (index_t e = 0; e < c.experts; ++e) {
    offsets.push_back(static_cast<std::int32_t>(slot_of_row.size()));
    for (std::size_t s = 0; s < row_of_slot.size(); ++s) {
      if (c.expert_of_slot.values[s] != e) continue;
      row_of_slot[s] = static_cast<std::int32_t>(slot_of_row.size());
      slot_of_row.push_back(static_cast<std::int32_t>(s));
    }
  }
  offsets.push_back(static_cast<std::int32_t>(slot_of_row.size()));
  const auto rows = static_cast<index_t>(slot_of_row.size());
  slot_of_row.resize(row_of_slot.size(), -1);
  CHECK(r.offsets == offsets);
  CHECK(r.slot_of_row == slot_of_row);
  CHECK(r.row_of_slot == row_of_slot);

  tensor<double> gathered(c.tokens * c.slots, c.width, 6), d_rows = gathered;  // rows beyond the last are not touched
  tensor<double> combined(c.tokens, c.width), magnitude = combined, unweighted = combined,
                                              unweighted_magnitude = combined;
  tensor<double> d_weights(c.tokens, c.slots), d_weights_magnitude = d_weights;
  for (index_t row = 0; row < rows; ++row) {
    const index_t slot = slot_of_row[static_cast<std::size_t>(row)], t = slot / c.slots, k = slot % c.slots;
    for (index_t i = 0; i < c.width; ++i) {
      const double y = c.outputs.at(row, i), w = c.weights.at(t, k), d = c.d_out.at(t, i);
      gathered(row, i) = c.x.at(t, i);
      combined(t, i) += w * y;
      magnitude(t, i) += std::abs(w * y);
      unweighted(t, i) += y;
      unweighted_magnitude(t, i) += std::abs(y);
      d_rows(row, i) = w * d;
      d_weights(t, k) += d * y;
      d_weights_magnitude(t, k) += std::abs(d * y);
    }
  }
  CHECK(mismatch(r.gathered, gathered, [](index_t, index_t) { return 0x1p-1000; }) == "");
  // K products and sums, and the old value.
  const double k = static_cast<double>(c.slots) + 2;
  CHECK(mismatch(r.combined, combined,
                 [&](index_t t, index_t i) { return bound<T>(combined.at(t, i), k, magnitude.at(t, i)); }) == "");
  CHECK(mismatch(r.unweighted, unweighted, [&](index_t t, index_t i) {
          return bound<T>(unweighted.at(t, i), k, unweighted_magnitude.at(t, i));
        }) == "");
  tensor<double> added = combined;
  for (index_t t = 0; t < c.tokens; ++t)
    for (index_t i = 0; i < c.width; ++i) added(t, i) += c.before.at(t, i);
  CHECK(mismatch(r.added, added, [&](index_t t, index_t i) {
          return bound<T>(added.at(t, i), k, magnitude.at(t, i) + std::abs(c.before.at(t, i)));
        }) == "");
  CHECK(mismatch(r.d_rows, d_rows, [&](index_t row, index_t i) {
          return bound<T>(d_rows.at(row, i), 1, std::abs(d_rows.at(row, i)));
        }) == "");
  CHECK(mismatch(r.d_weights, d_weights, [&](index_t t, index_t s) {
          return bound<M>(d_weights.at(t, s), static_cast<double>(c.width) + 1, d_weights_magnitude.at(t, s));
        }) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("permutation: plan, gather and combine, forward and backward", "[ops]", double, float, bfloat16) {
  context<cpu> ctx(context_options{1});
  shuffled_context shuffled(12);
  const index_t experts = GENERATE(1, 3, 8), tokens = GENERATE(1, 29), width = GENERATE(1, 21);
  for (const index_t slots : {index_t{1}, index_t{2}, experts}) {
    CAPTURE(tokens, slots, experts, width);
    const mix_case<TestType> c(tokens, slots, experts, width);
    check_values(c, run(ctx, c));
    check_values(c, run(shuffled, c));
  }
}

TEMPLATE_TEST_CASE("permutation: the same bits on one thread and on two", "[ops]", double, float, bfloat16) {
  context<cpu> one(context_options{1}), two(context_options{2});
  const mix_case<TestType> c(3000, 3, 5, 20);
  CHECK(run(one, c) == run(two, c));
}

TEST_CASE("permutation: all slots empty, all slots of one expert", "[ops]") {
  context<cpu> ctx(context_options{1});
  mix_case<float> c(6, 2, 3, 5);
  c.expert_of_slot = integers(std::vector<std::int32_t>(12, -1));
  const mix_result<float> empty = run(ctx, c);
  check_values(c, empty);
  CHECK(empty.offsets == std::vector<std::int32_t>{0, 0, 0, 0});
  CHECK(same_bits(empty.combined, tensor<float>(6, 5)));  // zeros
  CHECK(same_bits(empty.added, c.before));
  CHECK(same_bits(empty.d_weights, tensor<float>(6, 2)));

  c.expert_of_slot = integers(std::vector<std::int32_t>(12, 1));  // every token twice
  const mix_result<float> full = run(ctx, c);
  check_values(c, full);
  CHECK(full.offsets == std::vector<std::int32_t>{0, 0, 12, 12});
}

TEST_CASE("permutation: a plan by hand", "[ops]") {
  context<cpu> ctx(context_options{1});
  // Three tokens of two slots over four experts: expert 0 and 3 without rows, token 1 with expert 2 twice, token 2 half
  // empty.
  const auto slots = integers({2, 1, 2, 2, -1, 1});
  const auto plan = make_dispatch_plan(ctx, slots.vector(), 4, 2);
  CHECK(values_of(plan.offsets) == std::vector<std::int32_t>{0, 0, 2, 5, 5});
  CHECK(values_of(plan.slot_of_row) == std::vector<std::int32_t>{1, 5, 0, 2, 3, -1});
  CHECK(values_of(plan.row_of_slot) == std::vector<std::int32_t>{2, 0, 3, 4, -1, 1});
  CHECK(*plan.row_count() == 5);
}

TEMPLATE_TEST_CASE("permutation: the rows' gradient in the memory of the rows", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> ctx(context_options{1});
  shuffled_context shuffled(3);
  const mix_case<T> c(17, 3, 4, 19);
  const mix_result<T> apart = run(ctx, c);
  const auto in_place = [&](auto& any) {
    workspace_scope scope(any);
    const auto plan = make_dispatch_plan(any, c.expert_of_slot.vector(), c.experts, c.slots);
    tensor<T> rows = c.outputs;
    tensor<accumulator_t<T>> d_weights(c.tokens, c.slots, 6);
    combine_rows_backward(any, rows.matrix(), d_weights.matrix(), c.d_out.matrix(), rows.matrix(), c.weights.matrix(),
                          plan);
    mix_result<T> r = apart;
    // Rows beyond the last keep what they held: outputs here, 6 there.
    for (index_t row = 0; row < apart.offsets.back(); ++row)
      for (index_t i = 0; i < c.width; ++i) r.d_rows(row, i) = rows(row, i);
    for (index_t row = apart.offsets.back(); row < rows.rows; ++row)
      for (index_t i = 0; i < c.width; ++i) CHECK(rows.at(row, i) == c.outputs.at(row, i));
    r.d_weights = d_weights;
    return r;
  };
  CHECK(in_place(ctx) == apart);
  check_values(c, in_place(shuffled));
}

TEST_CASE("permutation: gradient by central differences", "[ops]") {
  context<cpu> ctx(context_options{1});
  const index_t experts = 3, slots = GENERATE(1, 2, 3);
  mix_case<double> c(7, slots, experts, 4);
  // y_t = sum over k of weight_tk h(x_t, expert), h = sin(x) scaled by expert: through gather, experts and combine.
  const auto forward = [&](tensor<double>& rows, const dispatch_plan<host_space>& plan) {
    rows = tensor<double>(c.tokens * slots, c.width);
    gather_tokens(ctx, rows.matrix(), c.x.matrix(), plan);
    tensor<double> outputs = rows, y(c.tokens, c.width);
    for (index_t e = 0; e < experts; ++e)
      for (index_t row = plan.offsets[e]; row < plan.offsets[e + 1]; ++row)
        for (index_t i = 0; i < c.width; ++i) outputs(row, i) = static_cast<double>(e + 1) * std::sin(rows(row, i));
    combine_rows(ctx, y.matrix(), outputs.matrix(), c.weights.matrix(), plan, accumulate::no);
    double sum = 0;
    for (std::size_t i = 0; i < y.values.size(); ++i) sum += c.d_out.values[i] * y.values[i];
    return std::pair(sum, outputs);
  };
  workspace_scope scope(ctx);
  const auto plan = make_dispatch_plan(ctx, c.expert_of_slot.vector(), experts, slots);
  tensor<double> rows;
  tensor<double> d_rows = forward(rows, plan).second, d_weights(c.tokens, slots), d_x(c.tokens, c.width, 9);
  combine_rows_backward(ctx, d_rows.matrix(), d_weights.matrix(), c.d_out.matrix(), d_rows.matrix(), c.weights.matrix(),
                        plan);
  for (index_t e = 0; e < experts; ++e)
    for (index_t row = plan.offsets[e]; row < plan.offsets[e + 1]; ++row)
      for (index_t i = 0; i < c.width; ++i) d_rows(row, i) *= static_cast<double>(e + 1) * std::cos(rows(row, i));
  combine_rows(ctx, d_x.matrix(), d_rows.matrix(), {}, plan, accumulate::no);

  const auto f = [&] {
    tensor<double> unused;
    return forward(unused, plan).first;
  };
  CHECK(gradient_mismatch(f, c.x.values, d_x.values) == "");
  CHECK(gradient_mismatch(f, c.weights.values, d_weights.values) == "");
}

}  // namespace permutation_tests
