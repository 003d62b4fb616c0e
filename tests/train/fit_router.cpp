// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// A router learns which of two members knows a text.

#include "catch.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <unistd.h>

#include <graft/train/checkpoint.hpp>
#include <graft/train/fit_router.hpp>

#include "models/bigram_member.hpp"

namespace fit_router_tests {

using namespace graft;
using namespace graft::test;

namespace {

using model_type = routed_forest<compute<fp32, cpu>, bigram_member<fp32>>;

// Even sequences are of tokens 0 to 3, odd ones of 4 to 7.
struct two_domains {
  void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) const {
    const random_source draw{9, random_stream::data};
    for (index_t b = 0; b < inputs.extent(0); ++b)
      for (index_t t = 0; t <= inputs.extent(1); ++t) {
        const auto token = static_cast<std::int32_t>(
            4 * (b % 2) + static_cast<std::int32_t>(draw.below(4, static_cast<std::uint64_t>(step),
                                                               static_cast<std::uint64_t>(100 * b + t))));
        if (t < inputs.extent(1)) inputs(b, t) = token;
        if (t > 0) targets(b, t - 1) = token;
      }
  }
};

// Member 0 knows tokens 4 to 7, member 1 tokens 0 to 3.
bigrams<fp32> two_members(context<cpu>& ctx) {
  bigrams<fp32> members;
  for (index_t j = 0; j < 2; ++j) {
    tensor<float> table(8, 8);
    for (index_t row = 0; row < 8; ++row)
      for (index_t v = 0; v < 8; ++v) table(row, v) = (v < 4) == (j == 1) ? 2.0f : 0.0f;
    members.push_back(std::make_shared<bigram_member<fp32>>(ctx, table));
  }
  return members;
}

training_options some_steps() {
  training_options options = router_training();
  options.steps = 60;
  options.sequences = 8;
  options.positions = 12;
  options.micro_sequences = 4;
  options.learning_rate = 0.05;
  return options;
}

}  // namespace

TEST_CASE("fit_router: sequences go to the member that knows them", "[train][routing]") {
  CHECK(router_training().learning_rate == 5e-4);
  CHECK(router_training().decay == decay_form::constant);
  context<cpu> ctx({.threads = 1});
  const auto members = two_members(ctx);
  const auto table = members[0]->table.values;
  model_type model(members, {.shortest = 4, .longest = 10});
  model.initialize(1);
  two_domains source;
  index_t steps = 0;
  const router_fit fit = fit_router(model, source, some_steps(), [&](const step_report& report) {
    CHECK(report.learning_rate == 0.05);
    CHECK(report.tokens == 96);
    ++steps;
  });
  CHECK(steps == 60);
  CHECK(fit.first_loss == Approx(std::log(2.0)).margin(0.1));
  CHECK(fit.last_loss < 0.2);
  CHECK(fit.agreement == 1);
  CHECK(members[0]->table.values == table);

  // On sequences it has not seen; the loss of either member on what it knows is log(4 + 4 e^-2).
  std::vector<std::int32_t> inputs(40), targets(40);
  source.fill(1000, matrix_view<std::int32_t>(inputs.data(), 4, 10), matrix_view<std::int32_t>(targets.data(), 4, 10));
  const matrix_view<const std::int32_t> input_view(inputs.data(), 4, 10), target_view(targets.data(), 4, 10);
  CHECK(model.choose(input_view) == std::vector<index_t>{1, 0, 1, 0});
  tensor<float> losses(1, 40);
  model.token_losses(losses.vector(), input_view, target_view);
  for (index_t t = 0; t < 40; ++t) CHECK(losses.at(0, t) == Approx(std::log(4 + 4 * std::exp(-2.0))).epsilon(1e-5));
}

TEST_CASE("fit_router: the same bits on two threads and in other micro-batches nearly so", "[train][routing]") {
  const auto weights = [](int threads, index_t micro) {
    context<cpu> ctx({.threads = threads});
    model_type model(two_members(ctx), {.shortest = 4, .longest = 10});
    model.initialize(1);
    two_domains source;
    training_options options = some_steps();
    options.steps = 5;
    options.micro_sequences = micro;
    fit_router(model, source, options);
    const auto master = model.parameters().master();
    return std::vector<float>(master.data, master.data + 8);
  };
  const std::vector<float> one = weights(1, 4);
  CHECK(one == weights(2, 4));
  const std::vector<float> whole = weights(1, 8);
  // Adam divides by the root of the second moment: roundings of gradients come out relative to the rate of 5 steps.
  for (std::size_t i = 0; i < 8; ++i) CHECK(whole[i] == Approx(one[i]).margin(1e-4));
}

TEST_CASE("fit_router: a run goes on from its checkpoint, with the same members alone", "[train][routing]") {
  const auto path = std::filesystem::temp_directory_path() / ("graft-fit-router-" + std::to_string(::getpid()));
  training_options options = some_steps();
  options.steps = 5;
  two_domains source;
  const auto weights = [](model_type& model) {
    const auto master = model.parameters().master();
    return std::vector<float>(master.data, master.data + master.extent(0));
  };
  context<cpu> ctx({.threads = 1});
  const auto members = two_members(ctx);
  model_type whole(members), first(members), second(members), other({members[1], members[0]});
  for (model_type* model : {&whole, &first, &second, &other}) model->initialize(1);
  fit_router(whole, source, options);
  {
    trainer<model_type> run(first, options);
    for (int step = 0; step < 3; ++step) run.step(source);
    save_checkpoint(run, path, "data");
  }
  trainer<model_type> refused(other, options);
  CHECK_THROWS_AS(load_checkpoint(refused, path, "data"), error);
  trainer<model_type> run(second, options);
  load_checkpoint(run, path, "data");
  CHECK(run.next_step() == 3);
  while (!run.finished()) run.step(source);
  CHECK(weights(second) == weights(whole));
  std::filesystem::remove(path);
}

}  // namespace fit_router_tests
