// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Attention on CUDA: the laws that every backend keeps, for each method that computes it, and which method that is.

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/attention.cuh>
#include <graft/backend/cuda/cached_attention.cuh>
#include <graft/backend/cuda/rows.cuh>

#include "attention_laws.hpp"

namespace graft::test {

TEST_CASE("cuda attention: fp32") {
  context<cuda> ctx;
  check_attention_definition<float>(ctx, 4);
  check_attention_strides<float>(ctx);
}

TEST_CASE("cuda attention: bf16 by the tensor cores") {
  context<cuda> ctx;
  check_attention<bfloat16>(ctx);
}

TEST_CASE("cuda attention: bf16 by the row algorithms") {
  context<cuda> ctx;
  choose_attention(ctx, attention_method::rows);
  check_attention_definition<bfloat16>(ctx, 4);
}

// The tensor-core kernels round weights to bf16, the row algorithms do not: their bits tell them apart.
TEST_CASE("cuda attention: shapes that the kernels do not take go to the row algorithms") {
  const auto taken = [](const attention_shape& shape, index_t gap) {
    const auto inputs = attention_inputs<bfloat16>(shape, 51);
    context<cuda> ctx;
    const auto own = attention_of(ctx, shape, inputs, gap);
    choose_attention(ctx, attention_method::rows);
    const auto rows = attention_of(ctx, shape, inputs, gap);
    CHECK(same_bits(own.out, rows.out) == same_bits(own.d_qkv, rows.d_qkv));
    return !same_bits(own.out, rows.out);
  };
  for (const index_t head_dim : {32, 48, 64, 96, 128}) CHECK(taken({1, 20, 2, 1, head_dim}, 8));
  CHECK_FALSE(taken({1, 20, 2, 1, 40}, 8));
  CHECK_FALSE(taken({1, 20, 2, 1, 64}, 3));  // rows that are not aligned
}

// What it computes is held against the definition in ops.cu.
TEST_CASE("cuda attention: cached keys and values of the same shapes have a kernel") {
  context<cuda> ctx;
  const auto taken = [&](index_t head_dim, index_t run, index_t gap) {
    workspace_scope scope(ctx);
    const attention_shape shape{1, 1, 4, 2, head_dim};
    const auto queries = ctx.allocate<bfloat16>(index_t{1}, shape.out_width()),
               keys_values = ctx.allocate<bfloat16>(index_t{200}, 4 * head_dim + gap);
    const auto sums = ctx.allocate<float>(index_t{8}, head_dim),
               statistics = ctx.allocate<float>(index_t{8}, index_t{2});
    const bool result =
        cached_attention_tiles(ctx, sums, statistics, view<const bfloat16, 2, device_space>(queries),
                               keys_values.columns(0, 4 * head_dim), shape, run, index_t{2}, index_t{150});
    ctx.synchronize();
    return result;
  };
  for (const index_t head_dim : {32, 48, 64, 96, 128}) CHECK(taken(head_dim, 128, 8));
  CHECK_FALSE(taken(40, 128, 8));
  CHECK_FALSE(taken(64, 64, 8));
  CHECK_FALSE(taken(64, 128, 3));
  choose_attention(ctx, attention_method::rows);
  CHECK_FALSE(taken(64, 128, 8));
}

// cuDNN where it is built in and has a plan for the shape; elsewhere our own kernels, silently for `automatic` and not
// for `cudnn`.
TEST_CASE("cuda attention: bf16 by cuDNN") {
  context<cuda> ctx;
  choose_attention(ctx, attention_method::automatic);
#ifdef GRAFT_HAS_CUDNN
  check_attention<bfloat16>(ctx, attention_kernels::of_a_library);
  choose_attention(ctx, attention_method::cudnn);
  CHECK_NOTHROW(attention_of(ctx, {2, 128, 4, 2, 64}, attention_inputs<bfloat16>({2, 128, 4, 2, 64}, 61)));
#else
  const attention_shape shape{1, 20, 2, 1, 64};
  const auto inputs = attention_inputs<bfloat16>(shape, 61);
  const auto automatic = attention_of(ctx, shape, inputs);
  choose_attention(ctx, attention_method::own);
  CHECK(same_results(automatic, attention_of(ctx, shape, inputs)));
  choose_attention(ctx, attention_method::cudnn);
  CHECK_THROWS_WITH(attention_of(ctx, shape, inputs), Catch::Contains("built without cuDNN"));
#endif
}

}  // namespace graft::test
