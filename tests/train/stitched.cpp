// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Training of stitches: members stay bit-identical, runs repeat and resume, what is not trained does not move.

#include "catch.hpp"

#include <cstring>
#include <string>
#include <vector>

#include "models/stitched_check.hpp"
#include "training_check.hpp"

namespace stitched_tests {

using namespace graft;
using namespace graft::test;

namespace {

using stitched = stitched_of<fp64, hub_and_spokes>;

const training_options five_steps{.steps = 5,
                                  .sequences = 8,
                                  .positions = 8,
                                  .micro_sequences = 4,
                                  .seed = 3,
                                  .learning_rate = 0.01,
                                  .warmup_steps = 1,
                                  .optimizer = {.weight_decay = 0.5}};

struct stitching {
  context<cpu> ctx;
  std::vector<std::shared_ptr<stitched::member_type>> members;
  stitched model;
  trainer<stitched> run;
  arithmetic_source source{11};

  explicit stitching(int threads = 1, const stitch_options& options = {}, const training_options& how = five_steps)
      : ctx({.threads = threads}),
        members(random_members(ctx, {8, 8, 8})),
        model(ctx, members, hub_and_spokes{}, options),
        run((model.initialize(), model), how) {}
  std::vector<double> losses(index_t until = five_steps.steps) {
    std::vector<double> result;
    while (run.next_step() < until) result.push_back(run.step(source).loss);
    return result;
  }
};

}  // namespace

TEST_CASE("train stitched: members and idle gates keep their bits, stitches learn", "[train]") {
  stitching given;
  std::vector<std::vector<double>> before;
  for (const auto& member : given.members) before.push_back(master_of(*member));
  const auto start = master_of(given.model);
  // Something in the idle blocks, which decay would shrink.
  index_t idle = 0;
  for (const tensor_entry& entry : given.model.layout().tensors)
    for (index_t i = 0; !entry.optimized && i < entry.size(); ++i, ++idle)
      given.model.parameters().master()[entry.offset + i] = 0.25;
  REQUIRE(idle == 2 * 64);

  const auto losses = given.losses();
  CHECK(losses.back() < losses.front());
  for (std::size_t i = 0; i < before.size(); ++i) {
    CHECK(master_of(*given.members[i]) == before[i]);
    CHECK(given.members[i]->parameters().gradients().extent(0) == 0);
  }
  const auto end = master_of(given.model);
  for (const tensor_entry& entry : given.model.layout().tensors) {
    CAPTURE(entry.name);
    const auto at = static_cast<std::size_t>(entry.offset), size = static_cast<std::size_t>(entry.size());
    if (!entry.optimized) {
      for (std::size_t i = at; i < at + size; ++i) CHECK(end[i] == 0.25);
      continue;
    }
    CHECK_FALSE(std::equal(end.begin() + entry.offset, end.begin() + entry.offset + entry.size(),
                           start.begin() + entry.offset));
  }
  CHECK(given.run.optimizer().first_moment().extent(0) == given.model.layout().size);
}

TEST_CASE("train stitched: the same bits twice, with any number of threads", "[train]") {
  stitching one, again, two(2);
  CHECK(one.losses() == again.losses());
  two.losses();
  CHECK(master_of(one.model) == master_of(again.model));
  CHECK(master_of(one.model) == master_of(two.model));
  // Dropout is part of the run.
  stitching without(1, {.dropout = 0});
  without.losses();
  CHECK(master_of(one.model) != master_of(without.model));
}

// Gradients are sums over 64 tokens in another order: off by 64 u of terms of about 1, which eps of 1e-3 lets the
// update magnify by 10 at most, five times.
TEST_CASE("train stitched: micro-batches draw the dropout of the whole batch", "[train]") {
  training_options whole = five_steps, parts = five_steps;
  whole.optimizer.eps = parts.optimizer.eps = 1e-3;
  whole.micro_sequences = 8;
  parts.micro_sequences = 2;
  stitching a(1, {.dropout = 0.3}, whole), b(1, {.dropout = 0.3}, parts);
  const auto first = a.losses(), second = b.losses();
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(std::abs(first[i] - second[i]) < 1e-10);
}

TEST_CASE("train stitched: a run goes on from its checkpoint, and refuses that of another", "[train]") {
  const scratch_folder folder;
  const auto path = folder.path / "checkpoint.safetensors";
  stitching whole, first, second;
  const auto losses = whole.losses();
  first.losses(2);
  save_checkpoint(first.run, path, "data");
  load_checkpoint(second.run, path, "data");
  CHECK(second.losses() == std::vector<double>(losses.begin() + 2, losses.end()));
  CHECK(master_of(second.model) == master_of(whole.model));

  stitching other(1, {.dropout = 0.2});
  CHECK_THROWS_AS(load_checkpoint(other.run, path, "data"), error);
  stitching moved;
  moved.members[1]->parameters().master()[0] += 1;
  CHECK_THROWS_AS(load_checkpoint(moved.run, path, "data"), error);
}

}  // namespace stitched_tests
