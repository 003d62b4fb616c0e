// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Gradients against central differences, in double precision. The function under test reads its parameters from memory
// that the check perturbs in place, one element at a time: a vector of a test, or the arena of a whole model.
//
//   std::vector<double> x = ..., dx = ...;  // dx: what the backward pass says
//   CHECK(gradient_mismatch([&] { return loss(x); }, x, dx) == "");

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <graft/core/philox.hpp>

namespace graft::test {

// The tolerance of element i, with step h, u = 2^-53, F = max(1, |f|) and G = max(1, largest |gradient|), is
//   rounding u F / h        each evaluation of f is off by some u F, and the difference of two is divided by 2h
// + third h^2 G             the truncation error is h^2 / 6 times the third derivative
// With the defaults 7e-9 F + 9e-10 G. Scale f so that f and its gradient are about 1.
struct gradient_options {
  double step = 0x1p-20;
  double rounding = 64;
  double third = 1000;
  std::size_t samples = 0;  // check this many elements drawn without bias; 0: all of them
  std::uint64_t seed = 1;   // of the draw
  std::function<std::string(std::size_t)> name = [](std::size_t i) { return "[" + std::to_string(i) + "]"; };
};

// "" if the gradient agrees with the central differences of f() over x, else a sentence with the element that is
// furthest outside its tolerance. x is left as it was. A gradient that is zero within its tolerance everywhere is
// refused: it tests nothing.
template <class F>
std::string gradient_mismatch(F&& f, std::span<double> x, std::span<const double> gradient,
                              const gradient_options& options = {}) {
  std::ostringstream message;
  message.precision(12);
  if (x.size() != gradient.size() || x.empty()) {
    message << "gradient check: expected a gradient as long as x, got " << gradient.size() << " and " << x.size()
            << " elements";
    return message.str();
  }
  const std::size_t count = options.samples == 0 ? x.size() : options.samples;
  const random_source draw{options.seed, random_stream::sampling};
  double largest = 1;
  for (const double g : gradient) largest = std::max(largest, std::abs(g));  // NaN is met below

  std::size_t failures = 0, seen = 0;
  double worst = 0;
  for (std::size_t sample = 0; sample < count; ++sample) {
    const std::size_t i = options.samples == 0 ? sample : draw.below(x.size(), 0, sample);
    const double at = x[i];
    const double above = at + options.step, below = at - options.step;
    x[i] = above;
    const double f_above = f();
    x[i] = below;
    const double f_below = f();
    x[i] = at;
    const double difference = (f_above - f_below) / (above - below);  // the step as it was after rounding
    const double tolerance =
        options.rounding * 0x1p-53 * std::max({1.0, std::abs(f_above), std::abs(f_below)}) / options.step +
        options.third * options.step * options.step * largest;
    if (std::abs(difference) > 10 * tolerance) ++seen;
    const double excess = std::abs(gradient[i] - difference) / tolerance;
    if (excess <= 1) continue;
    ++failures;
    if (failures > 1 && !(excess > worst)) continue;
    worst = std::isnan(excess) ? std::numeric_limits<double>::infinity() : excess;
    message.str("");
    message << "gradient check: element " << options.name(i) << " (x=" << at << "): gradient " << gradient[i]
            << ", central difference " << difference << ", apart by " << excess << " tolerances of " << tolerance;
  }
  if (failures > 0) {
    message << "; " << failures << " of " << count << " elements differ";
  } else if (seen == 0) {
    message << "gradient check: expected a function that depends on x, but all " << count
            << " central differences are zero";
  }
  return message.str();
}

}  // namespace graft::test
