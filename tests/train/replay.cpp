// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The laws of recorded steps where nothing is recorded, and reports that come seldom.

#include "catch.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <graft/train/run.hpp>

#include "cuda/replay_laws.hpp"
#include "training_check.hpp"

namespace replay_tests {

using namespace graft;
using namespace graft::test;

TEST_CASE("replay: steps by place of their numbers", "[train]") {
  context<cpu> ctx({.threads = 1});
  check_replays<bf16>(ctx, false);
  check_other_replays<fp64>(ctx, false);
}

// What the trainer gives by its place is what plain arguments would be.
TEST_CASE("replay: a step equals one of plain numbers", "[train]") {
  context<cpu> ctx({.threads = 1});
  const auto make = replay_transformer<decltype(noisy_mixture()), fp64>{noisy_mixture(), 4};
  const auto model = make(ctx), plain = make(ctx);
  const training_options options = replay_options(true);
  ragged_source source;
  trainer run(*model, options);
  trainer only_its_optimizer(*plain, options);
  std::vector<std::int32_t> inputs(32), targets(32);
  const matrix_view<std::int32_t> in(inputs.data(), 4, 8), out(targets.data(), 4, 8);
  for (index_t step = 0; step < 3; ++step) {
    const step_report report = run.step(source);
    source.fill(step, in, out);
    const double count =
        static_cast<double>(std::count_if(targets.begin(), targets.end(), [](auto t) { return t >= 0; }));
    plain->clear_metrics();
    for (index_t pass = 0; pass < 2; ++pass)
      plain->forward_backward(in.rows(2 * pass, 2 * pass + 2), out.rows(2 * pass, 2 * pass + 2),
                              {.token_scale = 1.0 / count,
                               .auxiliary_scale = 0.5,
                               .balance_groups = 2,
                               .at = {.seed = 5, .step = step, .first_token = 16 * pass, .training = true}});
    auto& parameters = plain->parameters();
    only_its_optimizer.optimizer().update(ctx, parameters.master(), parameters.narrow(), parameters.gradients(),
                                          learning_rate({0.02, 3, 8, decay_form::linear, 0.1}, step), step);
    plain->end_step();
    CHECK(plain->metrics().loss_sum / count == report.loss);
  }
  CHECK(same_bytes(learned(run), learned(only_its_optimizer)));
}

namespace {

struct described_source : arithmetic_source {
  std::string description() const { return "arithmetic"; }
};

std::vector<step_report> reports_of(index_t every, const run_options& where = {}) {
  training_options options = some_steps();
  options.report_every = every;
  process<dense_of<fp32>> p(1, options);
  described_source source{{61}};
  std::vector<step_report> reports;
  const run_result result =
      run_training(p.run, source, where, [&](const step_report& report) { reports.push_back(report); });
  CHECK(result.steps == step_count);
  CHECK(result.seconds > 0);
  return reports;
}

}  // namespace

TEST_CASE("run_training: reports may come seldom", "[train]") {
  const std::vector<step_report> all = reports_of(1), some = reports_of(2), last = reports_of(100);
  REQUIRE(all.size() == 5);
  REQUIRE(some.size() == 3);
  REQUIRE(last.size() == 1);
  CHECK(same_report(some[0], all[1]));
  CHECK(same_report(some[1], all[3]));
  CHECK(same_report(some[2], all[4]));
  CHECK(same_report(last[0], all[4]));
  CHECK(all[4].steps == 1);
  CHECK(some[1].steps == 2);
  CHECK(some[2].steps == 1);
  CHECK(last[0].steps == 5);
}

// The step whose gradient is not a number changes no weight, and is named however late the host asks.
TEST_CASE("trainer: a step that is not finite is left out and named", "[train]") {
  const auto poison = [](auto& p) {
    const tensor_entry* norm = p.model.layout().find("model.norm.weight");
    p.model.parameters().master()[norm->offset] = std::numeric_limits<float>::quiet_NaN();
  };
  process<dense_of<fp32>> p(1);
  p.losses(2);
  poison(p);
  const std::string before = p.state();
  for (int i = 0; i < 2; ++i) p.run.advance(p.source);
  CHECK(p.state() == before);
  const auto sentence = Catch::Matches("trainer: step 2 gave a loss of .*: training diverged, lower the learning rate");
  CHECK_THROWS_WITH(p.run.check_finite(), sentence);
  CHECK(p.run.next_step() == 2);
  const scratch_folder folder;
  CHECK_THROWS_WITH(save_checkpoint(p.run, folder.path / "checkpoint.safetensors", "data"), sentence);
  CHECK(!std::filesystem::exists(folder.path / "checkpoint.safetensors"));
  CHECK_THROWS_WITH(p.run.report(), sentence);

  // Gone on from another place it is forgotten.
  p.model.initialize(1);
  p.run.set_next_step(0);
  CHECK_THROWS_WITH(p.run.report(), "trainer: expected a step since the last report, got none");
  CHECK(std::isfinite(p.run.step(p.source).loss));
}

TEST_CASE("trainer: a batch is filled once, and one that makes no sense is found where it is trained on", "[train]") {
  struct counting_source : arithmetic_source {
    std::vector<index_t> filled{};
    index_t bad = -1;
    void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) {
      filled.push_back(step);
      arithmetic_source::fill(step, inputs, targets);
      if (step == bad) inputs.data[0] = 61;
    }
  };
  process<dense_of<fp32>> p(1);
  counting_source source{{61}};
  while (!p.run.finished()) {
    p.run.advance(source);
    p.run.prepare(source);
    p.run.prepare(source);
  }
  CHECK(source.filled == std::vector<index_t>{0, 1, 2, 3, 4});
  CHECK(p.run.report().steps == 5);
  const std::string want = p.state();
  process<dense_of<fp32>> q(1);
  q.losses(step_count);
  CHECK(q.state() == want);

  process<dense_of<fp32>> r(1);
  source.bad = 1;
  r.run.advance(source);
  r.run.prepare(source);
  CHECK(r.run.report().step == 0);
  CHECK_THROWS_WITH(r.run.advance(source), Catch::Contains("got input 61") && Catch::Contains("in step 1"));
  CHECK(r.run.next_step() == 1);
}

}  // namespace replay_tests
