// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Sizes of published models, as constant expressions.

#include "catch.hpp"

#include <graft/backend/cpu/cpu.hpp>
#include <graft/models/counts.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

namespace counts_tests {

using namespace graft;

namespace {

// The seed of Branch-Train-Stitch, arXiv 2502.00075: 2.7B.
constexpr transformer_shape bts_seed{.vocabulary = 128000,
                                     .width = 3072,
                                     .blocks = 20,
                                     .heads = 24,
                                     .kv_heads = 1,
                                     .head_dim = 128,
                                     .hidden = 8192,
                                     .positions = 8192};
static_assert(parameter_count(bts_seed) == 2'689'723'392);
static_assert(active_parameter_count(bts_seed) == parameter_count(bts_seed));

// Mixtral 8x7B, arXiv 2401.04088: 46.7B parameters, 12.9B for one token.
constexpr transformer_shape mixtral{.vocabulary = 32000,
                                    .width = 4096,
                                    .blocks = 32,
                                    .heads = 32,
                                    .kv_heads = 8,
                                    .head_dim = 128,
                                    .hidden = 14336,
                                    .positions = 32768,
                                    .experts = 8};
using mixtral_mixture = mixture<top_k<2>, no_balancer, routed>;
static_assert(parameter_count(mixtral, mixtral_mixture{}) == 46'702'792'704);
static_assert(active_parameter_count(mixtral, mixtral_mixture{}) == 12'879'925'248);

// Llama 2 7B and Llama 3.2 1B (tied): 6.74B and 1.24B on their model cards.
constexpr transformer_shape llama2{.vocabulary = 32000,
                                   .width = 4096,
                                   .blocks = 32,
                                   .heads = 32,
                                   .kv_heads = 32,
                                   .head_dim = 128,
                                   .hidden = 11008,
                                   .positions = 4096};
static_assert(parameter_count(llama2) == 6'738'415'616);
constexpr transformer_shape llama32{.vocabulary = 128256,
                                    .width = 2048,
                                    .blocks = 16,
                                    .heads = 32,
                                    .kv_heads = 8,
                                    .head_dim = 64,
                                    .hidden = 8192,
                                    .positions = 131072,
                                    .tied = true};
static_assert(parameter_count(llama32) == 1'235'814'400);

constexpr transformer_shape tiny{
    .vocabulary = 11, .width = 6, .blocks = 2, .heads = 2, .kv_heads = 1, .head_dim = 4, .hidden = 5, .positions = 8};
// 2 x 11 x 6 + 6; a block: 2 x 6 + 6 x (8 + 4 + 4) + 8 x 6 + 3 x 5 x 6
static_assert(parameter_count(tiny) == 138 + 2 * (12 + 96 + 48 + 90));
// The head's product counts, the embedding's look-up does not; attention sees (S + 1) / 2 keys in two products per head
// and element.
static_assert(flops_per_token(tiny, 7).forward == 2.0 * (138 - 66 + 2 * 246) + 4.0 * 2 * 8 * 4);
static_assert(flops_per_token(tiny, 7).train == 3 * flops_per_token(tiny, 7).forward);

}  // namespace

TEST_CASE("counts: tying, QK-norm and experts change the count by what they hold", "[models]") {
  transformer_shape shape = tiny;
  shape.tied = true;
  CHECK(parameter_count(shape) == parameter_count(tiny) - 66);
  CHECK(flops_per_token(shape, 7).forward == flops_per_token(tiny, 7).forward);  // a tied head is as much work
  shape = tiny;
  shape.qk_norm = true;
  CHECK(parameter_count(shape) == parameter_count(tiny) + 2 * 8);
  shape = tiny;
  shape.experts = 3;
  const mixtral_mixture two;
  CHECK(parameter_count(shape, two) == parameter_count(tiny) + 2 * (2 * 90 + 3 * 6));
  CHECK(active_parameter_count(shape, two) == parameter_count(tiny) + 2 * (90 + 3 * 6));
  CHECK(make_layout(transformer_specs(shape, two)).parameter_count() == parameter_count(shape, two));
}

}  // namespace counts_tests
