// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Replays of recorded training steps, and what a recording refuses.

#include <graft/backend/cpu/cpu.hpp>
#include <graft/backend/cuda/cuda.cuh>

#include "replay_laws.hpp"

namespace graft::test {

TEST_CASE("cuda replay: transformers", "[model]") {
  context<cuda> ctx;
  check_replays<bf16>(ctx, true);
}

namespace {

struct add_element {
  view<float, 1, device_space> values;
  step_value<double> amount;
  GRAFT_HOST_DEVICE void operator()(index_t i) const { values[i] += static_cast<float>(double{amount}); }
};

}  // namespace

// A plain argument stays that of the recording; one that is given by its place does not.
TEST_CASE("cuda recorded_step: what a replay reads", "[model]") {
  context<cuda> ctx;
  const buffer<float, device_space> by_value(3), by_place(3);
  const buffer<double, device_space> place(1);
  recorded_step<context<cuda>> step;
  for (double amount = 1; amount <= 4; ++amount) {
    copy_from_host(ctx, place.view(), &amount);
    step.run(
        ctx, [] { return recording_key(); },
        [&] {
          launch_elements(ctx, 3, add_element{by_value.view(), amount});
          launch_elements(ctx, 3, add_element{by_place.view(), step_value<double>::at(place.data())});
        });
    CHECK(step.recorded() == (amount > 1));
  }
  std::vector<float> values(3), places(3);
  copy_to_host(ctx, values.data(), by_value.view());
  copy_to_host(ctx, places.data(), by_place.view());
  CHECK(values == std::vector<float>(3, 1 + 2 + 2 + 2));
  CHECK(places == std::vector<float>(3, 1 + 2 + 3 + 4));

  // Another key is other work.
  recording_key other;
  other.append(std::uint64_t{1});
  step.run(
      ctx, [&] { return other; }, [] {});
  CHECK(!step.recorded());
  for (int i = 0; i < 3; ++i)
    step.run(
        ctx, [] { return recording_key(false); }, [] {});
  CHECK(!step.recorded());
}

TEST_CASE("cuda recorded_step: work that waits for the device is refused in a sentence", "[model]") {
  context<cuda> ctx;
  const buffer<float, device_space> values(1);
  recorded_step<context<cuda>> step;
  const auto waits = [&] {
    launch_elements(ctx, 1, add_element{values.view(), 1.0});
    ctx.synchronize();
  };
  step.run(
      ctx, [] { return recording_key(); }, waits);
  CHECK_THROWS_WITH(step.run(
                        ctx, [] { return recording_key(); }, waits),
                    Catch::Contains("expected work that a CUDA graph can hold") && Catch::Contains("record_graph"));
  // The stream is as it was.
  step.run(
      ctx, [] { return recording_key(); }, waits);
  float value = 0;
  copy_to_host(ctx, &value, values.view());
  CHECK(value == 2);
}

TEST_CASE("cuda staging: a block is not written while it is on its way", "[model]") {
  context<cuda> ctx;
  constexpr std::size_t bytes = std::size_t{1} << 16;
  staging<context<cuda>> stage(bytes);
  std::vector<buffer<std::byte, device_space>> targets;
  for (int i = 0; i < 6; ++i) targets.emplace_back(static_cast<index_t>(bytes));
  for (std::size_t i = 0; i < targets.size(); ++i) {
    std::byte* block = stage.block();
    std::memset(block, static_cast<int>(i) + 1, bytes);
    stage.send(ctx, targets[i].view());
  }
  for (std::size_t i = 0; i < targets.size(); ++i) {
    std::vector<std::byte> got(bytes);
    copy_to_host(ctx, got.data(), targets[i].view());
    CHECK(got == std::vector<std::byte>(bytes, static_cast<std::byte>(i + 1)));
  }
}

}  // namespace graft::test
