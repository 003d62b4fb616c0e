// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Training: accumulation of gradients, learning, what a step reports and what it refuses.

#include "catch.hpp"

#include <cmath>
#include <numeric>
#include <vector>

#include "training_check.hpp"

namespace trainer_tests {

using namespace graft;
using namespace graft::test;

namespace {

template <class Model>
transformer_shape shape_for() {
  return small_shape(Model::mixture_type::present ? 3 : 0);
}

struct trained_run {
  std::vector<step_report> reports;
  std::vector<double> master;
};

template <class Model>
trained_run train(const training_options& options, bool holes) {
  context<cpu> ctx({.threads = 1});
  Model model(ctx, shape_for<Model>());
  randomize(model, 1);
  trainer<Model> run(model, options);
  arithmetic_source source{11, holes};
  trained_run result;
  while (!run.finished()) result.reports.push_back(run.step(source));
  result.master = master_of(model);
  return result;
}

double furthest(const trained_run& a, const trained_run& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.master.size(); ++i) most = std::max(most, std::abs(a.master[i] - b.master[i]));
  return most;
}

// eps of 1e-3 keeps an update from magnifying the rounding of a gradient near zero: by rate / eps = 10 at most.
training_options three_steps(index_t micro, index_t groups) {
  training_options options{.steps = 3,
                           .sequences = 4,
                           .positions = 5,
                           .micro_sequences = micro,
                           .balance_groups = groups,
                           .learning_rate = 0.01,
                           .warmup_steps = 1};
  options.optimizer.eps = 1e-3;
  return options;
}

}  // namespace

// A gradient is a sum over 20 tokens taken in another order: off by 20 u of terms of about 1, which the update
// magnifies by 10, and the next steps by the curvature: 1e-12 holds 450 times 20 u.
TEMPLATE_TEST_CASE("trainer: accumulation over micro-batches equals one batch up to rounding", "[train]",
                   dense_of<fp64>, moe_of<fp64>) {
  const bool holes = GENERATE(false, true);  // micro-batches with different numbers of targets
  CAPTURE(holes);
  const trained_run whole = train<TestType>(three_steps(4, 4), holes);
  for (const index_t micro : {1, 2}) {
    CAPTURE(micro);
    const trained_run parts = train<TestType>(three_steps(micro, micro), holes);
    CHECK(furthest(whole, parts) <= 1e-12);
    CHECK(furthest(whole, parts) > 0);  // not the same computation
    for (std::size_t step = 0; step < 3; ++step) {
      CHECK(std::abs(whole.reports[step].loss - parts.reports[step].loss) <= 1e-12);
      CHECK(std::abs(whole.reports[step].auxiliary - parts.reports[step].auxiliary) <= 1e-12);
      CHECK(std::abs(whole.reports[step].gradient_norm - parts.reports[step].gradient_norm) <= 1e-11);
      CHECK(all_counts(whole.reports[step].load) == all_counts(parts.reports[step].load));
    }
  }
  if (TestType::mixture_type::present) {
    CHECK(whole.reports[0].auxiliary > 0);
    // Balanced over the whole batch instead of by sequence the losses differ: the groups above are what makes the runs
    // equal.
    CHECK(std::abs(train<TestType>(three_steps(4, 1), holes).reports[0].auxiliary - whole.reports[0].auxiliary) > 1e-6);
  }
}

TEMPLATE_TEST_CASE("trainer: the loss goes down on a task that can be learned", "[train]", dense_of<fp64>,
                   moe_of<fp64>) {
  context<cpu> ctx({.threads = 1});
  TestType model(ctx, shape_for<TestType>());
  model.initialize(1);
  trainer<TestType> run(model, {.steps = 60, .sequences = 4, .positions = 8, .learning_rate = 0.02, .warmup_steps = 5});
  arithmetic_source source{11};
  const step_report first = run.step(source);
  CHECK(std::abs(first.loss - std::log(11.0)) < 0.1);  // nothing is known at the start
  step_report last = first;
  while (!run.finished()) last = run.step(source);
  CHECK(last.loss < 0.3);
  CHECK(last.step == 59);
  CHECK(last.learning_rate < 0.003);
  CHECK(run.next_step() == 60);
}

TEMPLATE_TEST_CASE("trainer: fp64 gives the same bits for any number of threads", "[train]", dense_of<fp64>,
                   moe_of<fp64>) {
  process<TestType> one(1), two(2);
  CHECK(one.losses(2) == two.losses(2));
  CHECK(one.state() == two.state());
}

TEST_CASE("trainer: what a step reports", "[train]") {
  const training_options options{.steps = 2, .sequences = 2, .positions = 8, .learning_rate = 0.5, .warmup_steps = 2};
  context<cpu> ctx({.threads = 1});
  moe_of<fp64> model(ctx, small_shape(3));
  randomize(model, 1);
  arithmetic_source source{11, true};
  std::vector<std::int32_t> inputs(16), targets(16);
  const matrix_view<std::int32_t> in(inputs.data(), 2, 8), out(targets.data(), 2, 8);
  source.fill(0, in, out);
  tensor<double> losses(1, 16);
  model.token_losses(losses.vector(), in, out);
  const pass_metrics want = model.metrics();

  trainer<moe_of<fp64>> run(model, options);
  const step_report report = run.step(source);
  CHECK(report.step == 0);
  CHECK(report.tokens == 16);
  CHECK(report.learning_rate == 0.25);
  CHECK(report.seconds > 0);
  const double target_count =
      static_cast<double>(std::count_if(targets.begin(), targets.end(), [](auto t) { return t >= 0; }));
  CHECK(target_count == 14);
  CHECK(std::abs(report.loss - want.loss_sum / target_count) <= 1e-15 * 10);  // the mean over tokens with a target
  CHECK(report.auxiliary == want.auxiliary_sum);
  CHECK(report.load == want.load);
  const std::vector<double> counts = all_counts(report.load);
  CHECK(std::accumulate(counts.begin(), counts.end(), 0.0) == 2 * 2 * 16);
  CHECK(report.gradient_norm > 0);
}

TEST_CASE("trainer: a run does not depend on gradients left by others", "[train]") {
  const training_options options{.steps = 1, .sequences = 2, .positions = 8};
  arithmetic_source source{11};
  const auto run_after = [&](bool disturbed) {
    context<cpu> ctx({.threads = 1});
    dense_of<fp64> model(ctx, small_shape());
    randomize(model, 1);
    if (disturbed) {
      const test::token_batch batch(2, 6, 11);
      model.parameters().set_trainable({});
      model.forward_backward(batch.input(), batch.target(), {});
    }
    trainer<dense_of<fp64>> run(model, options);
    run.step(source);
    return master_of(model);
  };
  CHECK(run_after(false) == run_after(true));
}

TEST_CASE("trainer: options and batches that make no sense are refused", "[train]") {
  context<cpu> ctx({.threads = 1});
  dense_of<fp64> model(ctx, small_shape());
  randomize(model, 1);
  using run_type = trainer<dense_of<fp64>>;
  CHECK_THROWS_WITH(run_type(model, {.sequences = 4, .micro_sequences = 3}),
                    "trainer: expected micro_sequences to divide sequences, got micro_sequences=3, sequences=4");
  CHECK_THROWS_AS(run_type(model, {.sequences = 4, .micro_sequences = -2}), error);
  CHECK_THROWS_AS(run_type(model, {.sequences = 4, .micro_sequences = 8}), error);
  CHECK_THROWS_AS(run_type(model, {.sequences = 0}), error);
  CHECK_THROWS_AS(run_type(model, {.positions = -1}), error);
  CHECK_THROWS_WITH(run_type(model, {.learning_rate = -1e-3}), Catch::Contains("at least 0, got learning_rate=-0.001"));
  CHECK_THROWS_AS(run_type(model, {.learning_rate = std::nan("")}), error);
  CHECK_THROWS_WITH(run_type(model, {.final_fraction = 7}), Catch::Contains("final_fraction from 0 to 1, got 7"));
  CHECK_THROWS_WITH(run_type(model, {}, [](const tensor_entry&) { return false; }),
                    "adamw: nothing to train, every tensor is frozen");

  run_type run(model, {.steps = 1, .sequences = 1, .positions = 4});
  struct fixed_source {
    std::vector<std::int32_t> inputs, targets;
    void fill(index_t, matrix_view<std::int32_t> in, matrix_view<std::int32_t> out) {
      std::copy(inputs.begin(), inputs.end(), in.data);
      std::copy(targets.begin(), targets.end(), out.data);
    }
  };
  fixed_source source{{0, 1, 11, 3}, {1, 2, 3, 4}};
  CHECK_THROWS_WITH(run.step(source),
                    "trainer: token ids must be below the vocabulary of 11, got input 11 and target 3 in step 0");
  source.inputs[2] = -1;
  CHECK_THROWS_AS(run.step(source), error);
  source = {{0, 1, 2, 3}, {1, 2, 3, 11}};
  CHECK_THROWS_AS(run.step(source), error);
  source.targets = {-1, -1, -1, -1};
  CHECK_THROWS_WITH(run.step(source), "trainer: the batch of step 0 has no target");
  CHECK(run.next_step() == 0);
  source.targets = {-1, -1, 2, -1};
  CHECK(run.step(source).loss > 0);
  CHECK(run.finished());
}

}  // namespace trainer_tests
