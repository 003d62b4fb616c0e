// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Products on CUDA, dense and grouped, against sums in double precision.

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/gemm.cuh>
#include <graft/backend/cuda/grouped_gemm.cuh>

#include "product_laws.hpp"

namespace graft::test {

TEST_CASE("cuda gemm: fp32") {
  context<cuda> ctx;
  check_dense_products<float, float>(ctx);
}
TEST_CASE("cuda gemm: fp64") {
  context<cuda> ctx;
  check_dense_products<double, double>(ctx);
}
TEST_CASE("cuda gemm: bf16") {
  context<cuda> ctx;
  check_dense_products<bfloat16, bfloat16>(ctx);
  check_dense_products<bfloat16, float>(ctx);
}

TEST_CASE("cuda grouped gemm: fp32") {
  context<cuda> ctx;
  check_grouped_products<float, float>(ctx);
}
TEST_CASE("cuda grouped gemm: fp64", "[large]") {
  context<cuda> ctx;
  check_grouped_products<double, double>(ctx);
}
TEST_CASE("cuda grouped gemm: bf16") {
  context<cuda> ctx;
  check_grouped_products<bfloat16, bfloat16>(ctx);
  check_grouped_products<bfloat16, float>(ctx);
}

TEST_CASE("cuda gemm: one plan a shape, and shapes that do not fit are refused") {
  context<cuda> ctx;
  const resident<context<cuda>, float> a(ctx, tensor<float>(8, 8, 1)), b(ctx, tensor<float>(8, 8, 1)),
      c(ctx, tensor<float>(8, 8));
  for (int i = 0; i < 3; ++i) gemm_nt(ctx, c.matrix(), a.matrix(), b.matrix());
  CHECK(ctx.products().plan_count() == 1);
  CHECK(c.get().at(7, 7) == 8);
  CHECK_THROWS_AS(gemm_nt(ctx, c.matrix(), a.matrix().rows(0, 7), b.matrix()), error);
  CHECK_THROWS_AS(gemm_nn(ctx, c.matrix(), a.matrix(), b.matrix().rows(0, 7)), error);
  CHECK_THROWS_AS(gemm_tn(ctx, c.matrix().columns(0, 7), a.matrix(), b.matrix()), error);
}

}  // namespace graft::test
