// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Stitched models that run some experts for a sequence: which, and that the result is that of those alone.

#include "catch.hpp"

#include <cmath>
#include <vector>

#include <graft/models/generation.hpp>
#include <graft/models/sparse_stitched.hpp>

#include "stitched_check.hpp"

namespace sparse_stitched_tests {

using namespace graft;
using namespace graft::test;

namespace {

using stitched = stitched_of<>;
using sparse = sparse_stitched<stitched>;
static_assert(CachedModel<sparse>);

std::vector<double> losses_of(auto& model, matrix_view<const std::int32_t> inputs,
                              matrix_view<const std::int32_t> targets) {
  std::vector<double> losses(static_cast<std::size_t>(inputs.size()));
  model.token_losses(vector_view<double>(losses.data(), inputs.size()), inputs, targets);
  return losses;
}

}  // namespace

TEST_CASE("sparse stitched: every sequence is read by its experts alone", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(12, 5, 11);
  stitched model(ctx, random_members(ctx, {8, 8, 8, 8}));
  randomize(model, 5);
  sparse some(model, {.experts = 2});
  some.router().initialize(3);
  const auto chosen = some.choose(batch.input());
  REQUIRE(chosen.size() == 12);
  bool differ = false;
  for (const auto& each : chosen) {
    CHECK(each.size() == 2);
    CHECK(each.front() > 0);  // the hub runs anyway
    differ = differ || each != chosen[0];
  }
  REQUIRE(differ);  // the case has more than one set

  model.clear_metrics();
  const auto losses = losses_of(some, batch.input(), batch.target());
  double sum = 0;
  for (const double loss : losses) sum += loss;
  CHECK(std::abs(some.metrics().loss_sum - sum) < 1e-11);
  tensor<double> logits(12, 11);
  some.next_token_logits(logits.matrix(), batch.input());
  for (index_t b = 0; b < 12; ++b) {
    model.set_active(chosen[static_cast<std::size_t>(b)]);
    const auto want = losses_of(model, batch.input().rows(b, b + 1), batch.target().rows(b, b + 1));
    tensor<double> next(1, 11);
    model.next_token_logits(next.matrix(), batch.input().rows(b, b + 1));
    // Products of other numbers of rows may sum in another order: 16 terms, four blocks.
    for (std::size_t s = 0; s < 5; ++s) CHECK(std::abs(losses[static_cast<std::size_t>(b) * 5 + s] - want[s]) < 1e-11);
    for (index_t v = 0; v < 11; ++v) CHECK(std::abs(logits(b, v) - next(0, v)) < 1e-11);
  }
}

TEST_CASE("sparse stitched: with all experts it is the stitched model", "[models]") {
  context<cpu> ctx({.threads = 1});
  const token_batch batch(3, 5, 11);
  stitched model(ctx, random_members(ctx, {8, 8, 8}));
  randomize(model, 5);
  sparse all(model, {.experts = 2});
  CHECK(losses_of(all, batch.input(), batch.target()) == losses_of(model, batch.input(), batch.target()));
  CHECK_THROWS_WITH(sparse(model, {.experts = 3}),
                    "sparse_stitched: expected experts from 0 to 2 and choose_from of at "
                    "least 0, got experts=3, choose_from=0");
}

TEST_CASE("sparse stitched: a prompt chooses for the text that it begins", "[models]") {
  context<cpu> ctx({.threads = 1});
  stitched model(ctx, random_members(ctx, {8, 8, 8}));
  randomize(model, 5);
  for (const index_t choose_from : {0, 2}) {
    sparse some(model, {.experts = 1, .choose_from = choose_from});
    some.router().initialize(3);
    for (const std::vector<std::int32_t>& prompt : {std::vector<std::int32_t>{1, 2, 3}, {7, 7}, {9, 0, 4, 10}}) {
      generation_options options{.tokens = 30, .temperature = 0.9};
      const auto cached = generate(some, prompt, options);
      options.use_cache = false;
      CHECK(cached == generate(some, prompt, options));
    }
  }
  // From the first two tokens of a longer text.
  sparse from_two(model, {.experts = 1, .choose_from = 2});
  from_two.router().initialize(3);
  const std::vector<std::int32_t> text{4, 5, 6, 7, 8, 9};
  const matrix_view<const std::int32_t> whole(text.data(), 1, 6), start(text.data(), 1, 2);
  CHECK(from_two.choose(whole) == from_two.choose(start));
}

}  // namespace sparse_stitched_tests
