// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Training on several ranks: the same bits on all of them, and what one rank learns from the whole batch.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/thread_communicator.hpp>
#include <graft/train/run.hpp>

#include "cuda/replay_laws.hpp"

namespace ranks_tests {

using namespace graft;
using namespace graft::test;

namespace {

struct rank_result {
  std::vector<step_report> reports;
  std::vector<std::vector<double>> state;
};

training_options rank_options(index_t micro) {
  training_options options = replay_options(true);
  options.steps = 5;
  options.micro_sequences = options.balance_groups = micro;
  options.optimizer.eps = 1e-3;  // keeps an update from magnifying the rounding of a gradient near zero
  return options;
}

// Ranks whose models start from other weights: those of rank 0 count.
template <class Mixture>
std::vector<rank_result> train_on(int ranks, index_t micro, const Mixture& mixture, index_t experts) {
  using model_type = transformer<Mixture, compute<fp64, cpu>>;
  thread_group group(ranks);
  std::vector<rank_result> results(static_cast<std::size_t>(ranks));
  std::vector<std::exception_ptr> problems(static_cast<std::size_t>(ranks));
  const auto work = [&](int rank) {
    try {
      const thread_communicator communicator(group, rank);
      context<cpu> ctx({.threads = 1});
      model_type model(ctx, replay_shape(experts), mixture);
      model.initialize(3 + static_cast<std::uint64_t>(rank));
      trainer<model_type, thread_communicator> run(model, rank_options(micro), {}, communicator);
      ragged_source source;
      auto& result = results[static_cast<std::size_t>(rank)];
      while (!run.finished()) result.reports.push_back(run.step(source));
      result.state = learned(run);
    } catch (...) {
      problems[static_cast<std::size_t>(rank)] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int rank = 1; rank < ranks; ++rank) others.emplace_back(work, rank);
  work(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& problem : problems)
    if (problem) std::rethrow_exception(problem);
  return results;
}

double furthest(const rank_result& a, const rank_result& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.state.size(); ++i)
    for (std::size_t j = 0; j < a.state[i].size(); ++j) most = std::max(most, std::abs(a.state[i][j] - b.state[i][j]));
  return most;
}

// Sums over the ranks are sums over the passes taken in another order: a gradient over at most 32 tokens is off by some
// 32 u of terms of about 1, which an update magnifies by rate / eps = 20 and the next steps by the curvature.
template <class Mixture>
void check_ranks(const char* name, const Mixture& mixture, index_t experts) {
  INFO(name);
  const rank_result whole = train_on(1, 1, mixture, experts)[0];
  for (const int ranks : {2, 4}) {
    CAPTURE(ranks);
    const auto results = train_on(ranks, 1, mixture, experts);
    for (const rank_result& each : results) {
      CHECK(same_bytes(each.state, results[0].state));
      for (std::size_t step = 0; step < whole.reports.size(); ++step)
        CHECK(same_report(each.reports[step], results[0].reports[step]));
    }
    CHECK(furthest(results[0], whole) <= 1e-11);
    for (std::size_t step = 0; step < whole.reports.size(); ++step) {
      const step_report &a = results[0].reports[step], &b = whole.reports[step];
      CHECK(std::abs(a.loss - b.loss) <= 1e-12);
      CHECK(std::abs(a.auxiliary - b.auxiliary) <= 1e-12);
      CHECK(std::abs(a.gradient_norm - b.gradient_norm) <= 1e-11);
      CHECK(all_counts(a.load) == all_counts(b.load));
      CHECK(a.tokens == b.tokens);
    }
  }
}

}  // namespace

TEST_CASE("ranks: each with its part of the batch learns what one learns from the whole", "[train][ranks]") {
  check_ranks("dense", no_mixture{}, 0);
  check_ranks("bias", biased_mixture(), 4);
  mixture<sample_top_1<>, switch_loss, routed> noisy;
  noisy.router.gate.jitter = 0.2;
  check_ranks("noise", noisy, 4);
}

TEST_CASE("ranks: a batch that cannot be shared out, and one that makes no sense, are errors of all",
          "[train][ranks]") {
  thread_group group(2);
  struct bad_source : ragged_source {
    void fill(index_t step, matrix_view<std::int32_t> inputs, matrix_view<std::int32_t> targets) const {
      ragged_source::fill(step, inputs, targets);
      inputs(0, 0) = 13;
    }
  };
  int refused[2] = {}, found[2] = {};
  const auto work = [&](int rank) {
    const thread_communicator communicator(group, rank);
    context<cpu> ctx({.threads = 1});
    using model_type = dense_transformer<compute<fp64, cpu>>;
    model_type model(ctx, replay_shape(0));
    model.initialize(3);
    training_options odd = rank_options(1);
    odd.sequences = 3;
    using run_type = trainer<model_type, thread_communicator>;
    try {
      run_type(model, odd, {}, communicator);
    } catch (const error&) {
      refused[rank] = 1;
    }
    run_type run(model, rank_options(1), {}, communicator);
    bad_source source;
    try {
      run.step(source);
    } catch (const error&) {
      found[rank] = 1;
    }
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  for (const int rank : {0, 1}) {
    CHECK(refused[rank] == 1);
    CHECK(found[rank] == 1);
  }
}

}  // namespace ranks_tests
