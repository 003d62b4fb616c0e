// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Learning-rate schedules at their corners.

#include "catch.hpp"

#include <cmath>

#include <graft/train/schedule.hpp>

namespace schedule_tests {

using namespace graft;

namespace {

bool near(double a, double b) {
  return std::abs(a - b) <= 8 * 0x1p-53 * std::abs(b) + 1e-30;
}  // a handful of operations

schedule_options with(decay_form form) {
  return {.peak = 0.5, .warmup_steps = 10, .total_steps = 110, .form = form, .final_fraction = 0.1};
}

}  // namespace

TEST_CASE("schedule: the same warm-up for all forms, the peak after it", "[train]") {
  for (const decay_form form : {decay_form::constant, decay_form::cosine, decay_form::linear}) {
    const schedule_options options = with(form);
    CHECK(near(learning_rate(options, 0), 0.05));  // never 0: the first step trains
    CHECK(near(learning_rate(options, 4), 0.25));
    CHECK(near(learning_rate(options, 9), 0.5));
    CHECK(near(learning_rate(options, 10), 0.5));
    for (index_t step = 1; step < 10; ++step) CHECK(learning_rate(options, step) > learning_rate(options, step - 1));
  }
}

TEST_CASE("schedule: middle, end and beyond", "[train]") {
  CHECK(learning_rate(with(decay_form::constant), 60) == 0.5);
  CHECK(learning_rate(with(decay_form::constant), 110) == 0.5);
  CHECK(near(learning_rate(with(decay_form::linear), 60), 0.5 * 0.55));
  CHECK(near(learning_rate(with(decay_form::linear), 110), 0.05));
  CHECK(near(learning_rate(with(decay_form::linear), 1000), 0.05));
  CHECK(near(learning_rate(with(decay_form::cosine), 60), 0.5 * 0.55));
  CHECK(near(learning_rate(with(decay_form::cosine), 35), 0.5 * (0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2)));
  CHECK(near(learning_rate(with(decay_form::cosine), 110), 0.05));
  CHECK(near(learning_rate(with(decay_form::cosine), 1000), 0.05));
  for (index_t step = 11; step <= 110; ++step) {
    CHECK(learning_rate(with(decay_form::cosine), step) < learning_rate(with(decay_form::cosine), step - 1));
    CHECK(learning_rate(with(decay_form::linear), step) < learning_rate(with(decay_form::linear), step - 1));
  }
}

TEST_CASE("schedule: no warm-up, and runs that are all warm-up", "[train]") {
  CHECK(learning_rate({.peak = 2, .warmup_steps = 0, .total_steps = 4}, 0) == 2);
  CHECK(learning_rate({.peak = 2, .warmup_steps = 0, .total_steps = 0}, 0) == 2);
  CHECK(learning_rate({.peak = 2, .warmup_steps = 8, .total_steps = 4}, 3) == 1);  // the warm-up is as it was asked for
  CHECK(learning_rate({.peak = 2, .warmup_steps = 4, .total_steps = 4}, 4) == 2);
}

}  // namespace schedule_tests
