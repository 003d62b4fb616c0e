// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Products of gathered rows, and products with SwiGLU, on the CPU.

#include <graft/backend/cpu/cpu.hpp>

#include "cuda/expert_product_laws.hpp"
#include "shuffled_context.hpp"

namespace grouped_swiglu_tests {

using namespace graft;
using namespace graft::test;

TEMPLATE_TEST_CASE("ops: grouped products are a loop over dense ones", "[ops]", float, double, bfloat16) {
  context<cpu> ctx({.threads = 2});
  check_grouped_against_dense<TestType>(ctx);
}

TEMPLATE_TEST_CASE("ops: products of gathered rows are those of a copy", "[ops]", float, double, bfloat16) {
  context<cpu> ctx({.threads = 2});
  check_gathered_products<TestType, TestType>(ctx);
  check_gathered_products<TestType, accumulator_t<TestType>>(ctx);
}

TEMPLATE_TEST_CASE("ops: a grouped product with SwiGLU is the product and the op", "[ops][slow]", float, double, bfloat16) {
  context<cpu> ctx({.threads = 2});
  check_swiglu_products<TestType>(ctx);
}

TEST_CASE("ops: a grouped product with SwiGLU does not depend on the order of rows", "[ops]") {
  shuffled_context ctx(5);
  check_swiglu_products<float>(ctx);
}

TEST_CASE("ops: what takes a matrix refuses gathered rows without a copy", "[ops]") {
  context<cpu> ctx({.threads = 1});
  const expert_case c{{3, 2}, 0, 5, 1, 4, 6};
  const gathered_case<float> host(c);
  const resident_rows<float, context<cpu>> rows(ctx, c, host);
  auto gathered = rows.gathered();
  gathered.copy = {};
  tensor<float> gate_up(5, 12), hidden(5, 6), weights(24, 4);
  const std::vector<std::int32_t> offsets = c.offsets();
  CHECK_THROWS_WITH(
      grouped_swiglu_forward(ctx, gate_up.matrix(), hidden.matrix(), gathered, stacked_view(weights.matrix(), 2, 4),
                             view<const std::int32_t, 1>(offsets.data(), 3)),
      "gathered_rows: expected a copy of 5 rows for a function that takes a matrix, got none");
}

TEST_CASE("ops: a grouped product with SwiGLU refuses shapes that do not fit", "[ops]") {
  context<cpu> ctx({.threads = 1});
  tensor<float> gate_up(5, 12), hidden(5, 6), rows(5, 4), weights(24, 4), few(4, 6), down(8, 6);
  const std::vector<std::int32_t> offsets = {0, 3, 5};
  const view<const std::int32_t, 1> ends(offsets.data(), 3);
  const auto w13 = stacked_view(weights.matrix(), 2, 4), w2 = stacked_view(down.matrix(), 2, 6);
  CHECK_THROWS_WITH(grouped_swiglu_forward(ctx, gate_up.matrix(), few.matrix(), rows.matrix(), w13, ends),
                    "grouped_swiglu_forward: expected as many rows in hidden and rows, got 4 and 5");
  CHECK_THROWS_WITH(
      grouped_swiglu_forward(ctx, gate_up.matrix().columns(0, 10), hidden.matrix(), rows.matrix(), w13, ends),
      "grouped_swiglu_forward: expected gate_up with 12 columns next to each other, got 10 with stride 1");
  CHECK_THROWS_WITH(grouped_swiglu_backward(ctx, gate_up.matrix(), hidden.matrix(), rows.matrix(), w2, gate_up.matrix(),
                                            ends.rows(0, 2)),
                    "grouped_swiglu_backward: expected contiguous offsets of size E+1=3, got 2");
}

}  // namespace grouped_swiglu_tests
