// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// AdamW against a naive reference in double precision: clipping, decay where it is declared, frozen tensors, the narrow
// copy.

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/layers/compute.hpp>
#include <graft/train/adamw.hpp>

#include "reference.hpp"

namespace adamw_tests {

using namespace graft;
using namespace graft::test;

namespace {

// Tensors with and without decay, neighbours that join into one run, a gap of alignment, more than one block of 2048.
parameter_layout sample_layout() {
  parameter_layout layout;
  const auto add = [&](const char* name, index_t rows, index_t columns, bool decay, index_t offset) {
    tensor_entry entry;
    entry.name = name;
    entry.offset = offset;
    entry.rows = rows;
    entry.columns = columns;
    entry.decay = decay;
    layout.tensors.push_back(entry);
    layout.size = offset + entry.size();
  };
  add("a", 10, 100, true, 0);
  add("b", 20, 150, true, 1000);  // joins a, crosses 2048
  add("norm", 50, 0, false, 4032);
  add("frozen", 40, 60, true, 4096);
  add("c", 7, 9, true, 6496);
  add("frozen norm", 30, 0, false, 6592);
  layout.size = 6656;
  return layout;
}
const std::vector<bool> trained = {true, true, true, false, true, false};

template <class M>
double u() {
  return unit_roundoff<M>;
}

}  // namespace

TEMPLATE_TEST_CASE("adamw: several steps against the equations", "[train]", fp64, fp32, bf16) {
  using compute_type = compute<TestType, cpu>;
  using M = typename TestType::master;
  using T = typename TestType::storage;
  const double clip = GENERATE(0.0, 1.0, 1e6);
  const int threads = GENERATE(1, 2);
  CAPTURE(clip, threads);
  const parameter_layout layout = sample_layout();
  const adamw_options options{.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.25, .clip = clip};
  context<cpu> ctx({.threads = threads});
  adamw<compute_type> optimizer(ctx, layout, trained, options);

  tensor<M> master = tensor<M>::random(1, layout.size, 1), gradients(1, layout.size);
  const tensor<M> start = master;
  std::vector<T> narrow(static_cast<std::size_t>(layout.size), T(7.0f));
  const view<T, 1> narrow_view = has_narrow_copy<TestType> ? view<T, 1>(narrow.data(), layout.size) : view<T, 1>();
  std::vector<double> p(master.wide().values), m(p.size(), 0.0), v(p.size(), 0.0);

  for (index_t step = 0; step < 5; ++step) {
    const double rate = 0.01 * static_cast<double>(step + 1);
    const tensor<M> drawn = tensor<M>::random(1, layout.size, 10 + static_cast<std::uint64_t>(step), 0.1);
    gradients = drawn;
    optimizer.update(ctx, master.vector(), narrow_view, gradients.vector(), rate, step);

    double square = 0;
    for (std::size_t i = 0; i < layout.tensors.size(); ++i)
      for (index_t j = 0; trained[i] && j < layout.tensors[i].size(); ++j)
        square += std::pow(drawn.at(0, layout.tensors[i].offset + j), 2);
    const double norm = std::sqrt(square), factor = clip > 0 && norm > clip ? clip / norm : 1.0;
    CHECK((factor < 1) == (clip == 1.0));
    CHECK(std::abs(optimizer.gradient_norm(ctx) - norm) <=
          100 * u<M>() * norm);  // blocks of 2048 in 16 lanes, then a few blocks
    for (std::size_t i = 0; i < layout.tensors.size(); ++i) {
      if (!trained[i]) continue;
      for (index_t j = 0; j < layout.tensors[i].size(); ++j) {
        const auto at = static_cast<std::size_t>(layout.tensors[i].offset + j);
        const double g = drawn.at(0, static_cast<index_t>(at)) * factor, t = static_cast<double>(step + 1);
        m[at] = 0.8 * m[at] + 0.2 * g;
        v[at] = 0.9 * v[at] + 0.1 * g * g;
        const double decay = layout.tensors[i].decay ? 0.25 : 0.0;
        p[at] -= rate *
                 (m[at] / (1 - std::pow(0.8, t)) / (std::sqrt(v[at] / (1 - std::pow(0.9, t))) + 1e-3) + decay * p[at]);
      }
    }
  }
  // Each step rounds a parameter once or twice and moves it by rate * (at most 3 + decay |p|), itself off by some
  // hundred u (the norm's sum and a dozen operations; moments can cancel, so their errors count against |g|, which is
  // at most 0.5, and eps).
  for (std::size_t i = 0; i < layout.tensors.size(); ++i) {
    const tensor_entry& entry = layout.tensors[i];
    INFO(entry.name);
    for (index_t j = entry.offset; j < entry.offset + entry.size(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      if (!trained[i]) {
        REQUIRE(std::memcmp(&master.values[at], &start.values[at], sizeof(M)) == 0);
        REQUIRE(optimizer.first_moment()[j] == 0);
        REQUIRE(optimizer.second_moment()[j] == 0);
        REQUIRE(static_cast<float>(narrow[at]) == 7.0f);
        continue;
      }
      REQUIRE(std::abs(master.at(0, j) - p[at]) <=
              u<M>() * (10 * (1 + std::abs(p[at])) + 5 * 0.05 * 400 * (3 + std::abs(p[at]))));
      REQUIRE(std::abs(static_cast<double>(optimizer.first_moment()[j]) - m[at]) <= 200 * u<M>());
      REQUIRE(std::abs(static_cast<double>(optimizer.second_moment()[j]) - v[at]) <= 200 * u<M>());
      if (has_narrow_copy<TestType>) REQUIRE(widen(narrow[at]) == widen(T(master.values[at])));
    }
  }
  for (const M g : gradients.values) REQUIRE(g == 0);  // cleared for the next step, frozen ones too
}

TEST_CASE("adamw: the same bits for any number of threads", "[train]") {
  const parameter_layout layout = sample_layout();
  const auto run = [&](int threads) {
    context<cpu> ctx({.threads = threads});
    adamw<compute<fp32, cpu>> optimizer(ctx, layout, trained, {});
    tensor<float> master = tensor<float>::random(1, layout.size, 1);
    for (index_t step = 0; step < 3; ++step) {
      tensor<float> gradients = tensor<float>::random(1, layout.size, 2);
      optimizer.update(ctx, master.vector(), {}, gradients.vector(), 0.01, step);
    }
    return master;
  };
  CHECK(same_bits(run(1), run(2)));
}

TEST_CASE("adamw: a model with nothing to train and flags that do not fit are refused", "[train]") {
  context<cpu> ctx({.threads = 1});
  using optimizer = adamw<compute<fp32, cpu>>;
  CHECK_THROWS_WITH(optimizer(ctx, sample_layout(), std::vector<bool>(6, false), {}),
                    "adamw: nothing to train, every tensor is frozen");
  CHECK_THROWS_WITH(optimizer(ctx, sample_layout(), std::vector<bool>(5, true), {}),
                    "adamw: expected a flag for each of 6 tensors, got 5");
}

TEMPLATE_TEST_CASE("adamw: a gradient whose norm is not finite changes nothing but itself", "[train]", fp64, fp32,
                   bf16) {
  using M = typename TestType::master;
  using T = typename TestType::storage;
  const parameter_layout layout = sample_layout();
  const double bad = GENERATE(1.0, 0.0) / 0.0;  // infinity and NaN
  context<cpu> ctx({.threads = 1});
  adamw<compute<TestType, cpu>> optimizer(ctx, layout, trained, {});
  tensor<M> master = tensor<M>::random(1, layout.size, 1), gradients = tensor<M>::random(1, layout.size, 2);
  std::vector<T> narrow(static_cast<std::size_t>(layout.size), T(7.0f));
  const view<T, 1> narrow_view = has_narrow_copy<TestType> ? view<T, 1>(narrow.data(), layout.size) : view<T, 1>();
  optimizer.update(ctx, master.vector(), narrow_view, gradients.vector(), 0.01, 0);
  const tensor<M> before = master;
  const auto copy_before = narrow;
  const std::vector<M> first(optimizer.first_moment().data, optimizer.first_moment().data + layout.size);

  gradients = tensor<M>::random(1, layout.size, 3);
  gradients.values[6500] = static_cast<M>(bad);
  optimizer.update(ctx, master.vector(), narrow_view, gradients.vector(), 0.01, 1);
  CHECK(!std::isfinite(optimizer.gradient_norm(ctx)));
  CHECK(same_bits(master, before));
  CHECK(std::memcmp(narrow.data(), copy_before.data(), narrow.size() * sizeof(T)) == 0);
  CHECK(std::equal(first.begin(), first.end(), optimizer.first_moment().data));
  for (const M g : gradients.values) REQUIRE(g == 0);
  gradients = tensor<M>::random(1, layout.size, 4);
  optimizer.update(ctx, master.vector(), narrow_view, gradients.vector(), 0.01, 1);
  CHECK(!same_bits(master, before));
}

// The rate and the step where they stand in memory, as a recorded step has them.
TEST_CASE("adamw: numbers given by their place are those that stand there", "[train]") {
  const parameter_layout layout = sample_layout();
  const auto run = [&](bool by_place) {
    context<cpu> ctx({.threads = 1});
    adamw<compute<fp32, cpu>> optimizer(ctx, layout, trained, {});
    tensor<float> master = tensor<float>::random(1, layout.size, 1);
    double rate = 0;
    index_t step = 0;
    for (; step < 3; ++step) {
      rate = 0.01 * static_cast<double>(step + 1);
      tensor<float> gradients = tensor<float>::random(1, layout.size, 2);
      if (by_place)
        optimizer.update(ctx, master.vector(), {}, gradients.vector(), step_value<double>::at(&rate),
                         step_value<index_t>::at(&step));
      else
        optimizer.update(ctx, master.vector(), {}, gradients.vector(), rate, step);
    }
    return master;
  };
  CHECK(same_bits(run(true), run(false)));
}

}  // namespace adamw_tests
