// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Batches with padding (input -1 with target -1) train as their tokens alone do, and padding with a target is refused.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "train/training_check.hpp"

namespace padding_tests {

using namespace graft;
using namespace graft::test;

namespace {

// Sequences of `tokens` tokens, padded to the length asked for; a function of step, sequence and place.
struct padded_source {
  index_t tokens;
  bool target_behind = false;

  void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) {
    for (index_t b = 0; b < inputs.extent(0); ++b)
      for (index_t s = 0; s < inputs.extent(1); ++s) {
        const index_t token = (7 * step + 3 * b + 5 * s * s) % 11;
        inputs(b, s) = s < tokens ? static_cast<std::int32_t>(token) : -1;
        targets(b, s) = s < tokens || target_behind ? static_cast<std::int32_t>((3 * token + 1) % 11) : -1;
      }
  }
};

}  // namespace

TEMPLATE_TEST_CASE("trainer: padded batches", "[train]", dense_of<fp64>, moe_of<fp64>) {
  context<cpu> ctx({.threads = 1});
  const auto train = [&](index_t positions, index_t micro) {
    TestType model(ctx, small_shape(TestType::mixture_type::present ? 3 : 0));
    randomize(model, 1);
    trainer<TestType> run(model, {.steps = 3,
                                  .sequences = 4,
                                  .positions = positions,
                                  .micro_sequences = micro,
                                  .learning_rate = 0.01,
                                  .warmup_steps = 0});
    padded_source source{6};
    std::vector<step_report> reports;
    while (!run.finished()) reports.push_back(run.step(source));
    return reports;
  };
  const auto plain = train(6, 4), padded = train(10, 4);
  for (std::size_t step = 0; step < 3; ++step) {
    CHECK(std::abs(padded[step].loss - plain[step].loss) <= 1e-11);
    CHECK(std::abs(padded[step].auxiliary - plain[step].auxiliary) <= 1e-11);
    CHECK(std::abs(padded[step].gradient_norm - plain[step].gradient_norm) <= 1e-10);
    for (std::size_t layer = 0; layer < plain[step].load.size(); ++layer)
      CHECK(padded[step].load[layer].counts == plain[step].load[layer].counts);
    CHECK(plain[step].loss > 0.1);
  }
  if (TestType::mixture_type::present) CHECK(plain[0].load[0].tokens == 24);
  CHECK(std::abs(train(10, 1)[0].loss - plain[0].loss) <= 1e-11);

  TestType model(ctx, small_shape(TestType::mixture_type::present ? 3 : 0));
  randomize(model, 1);
  trainer<TestType> run(model, {.steps = 1, .sequences = 1, .positions = 4});
  padded_source wrong{3, true};
  CHECK_THROWS_AS(run.step(wrong), error);
}

}  // namespace padding_tests
