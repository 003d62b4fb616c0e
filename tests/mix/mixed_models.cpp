// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What mixed models compute: a mix of copies of one seed computes what the seed computes, for any router whose weights
// sum to one.

#include "catch.hpp"

#include <cmath>
#include <vector>

#include <graft/mix/mix.hpp>

#include "models/model_check.hpp"

namespace mixed_models_tests {

using namespace graft;
using namespace graft::test;

TEMPLATE_TEST_CASE("mix: a btx mix of copies of a seed gives the seed's logits", "[mix]", mixture_of<1>, mixture_of<2>,
                   mixture_of<3>) {
  context<cpu> ctx({.threads = 1});
  transformer_shape shape = small_shape();
  shape.qk_norm = true;
  shape.tied = GENERATE(false, true);
  dense_transformer<compute<fp64, cpu>> seed(ctx, shape);
  randomize(seed, 1);
  const auto arena = seed.parameters().master();
  const std::vector<double> values(arena.data, arena.data + arena.extent(0));
  std::vector<mix_source<double>> copies;
  for (const char* name : {"a", "b", "c"}) copies.push_back({name, shape, "bytes", &seed.layout(), values});
  shape.experts = 3;
  transformer<TestType, compute<fp64, cpu>> mixed(ctx, shape);
  std::vector<double> target(static_cast<std::size_t>(mixed.layout().size));
  mix<double>(btx_recipe, copies, mixed.layout(), target, {.seed = 3});
  copy_from_host(ctx, mixed.parameters().master(), target.data());
  mixed.parameters().refresh(ctx);

  const token_batch batch(2, 6, 11);
  tensor<double> want(12, 11), got(12, 11);
  seed.logits(want.matrix(), batch.input());
  mixed.logits(got.matrix(), batch.input());
  const pass_metrics routed = mixed.metrics();
  REQUIRE(routed.load.size() == 2);
  CHECK(routed.load[1].counts.size() == 3);
  // Weights of K experts sum to one up to 2K u, and two blocks carry that on, through logits below 10.
  CHECK(mismatch(got, want, [](index_t, index_t) { return 1e-12; }) == "");
}

}  // namespace mixed_models_tests
