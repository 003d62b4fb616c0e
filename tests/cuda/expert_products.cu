// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Products of gathered rows, and products with SwiGLU, on CUDA.

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/gemm.cuh>
#include <graft/backend/cuda/grouped_gemm.cuh>
#include <graft/backend/cuda/grouped_swiglu.cuh>
#include <graft/backend/cuda/rows.cuh>

#include "expert_product_laws.hpp"

namespace graft::test {

TEST_CASE("cuda grouped products are a loop over dense ones") {
  context<cuda> ctx;
  check_grouped_against_dense<float>(ctx);
  check_grouped_against_dense<bfloat16>(ctx);
}
TEST_CASE("cuda products of gathered rows: fp32") {
  context<cuda> ctx;
  check_gathered_products<float, float>(ctx);
}
TEST_CASE("cuda products of gathered rows: bf16") {
  context<cuda> ctx;
  check_gathered_products<bfloat16, bfloat16>(ctx);
  check_gathered_products<bfloat16, float>(ctx);
}
TEST_CASE("cuda products with SwiGLU: fp32") {
  context<cuda> ctx;
  check_swiglu_products<float>(ctx);
}
TEST_CASE("cuda products with SwiGLU: bf16") {
  context<cuda> ctx;
  check_swiglu_products<bfloat16>(ctx);
}

}  // namespace graft::test
