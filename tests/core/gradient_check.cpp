// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The gradient check itself: it accepts a right gradient and names what is wrong with a wrong one.

#include "catch.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "gradient_check.hpp"

namespace gradient_check_tests {

using graft::test::gradient_mismatch;
using graft::test::gradient_options;

TEST_CASE("gradient_check: accepts right gradients and names wrong elements", "[core]") {
  std::vector<double> x = {0.5, -1.25, 2.0, 0.0};
  const std::vector<double> before = x;
  const auto f = [&] { return std::sin(x[0]) * x[1] + std::exp(x[2]) + x[3] * x[3] * x[3]; };
  const std::vector<double> right = {std::cos(x[0]) * x[1], std::sin(x[0]), std::exp(x[2]), 0.0};

  CHECK(gradient_mismatch(f, x, right) == "");
  CHECK(x == before);

  // An error of one part in a million in one element.
  std::vector<double> wrong = right;
  wrong[2] *= 1 + 1e-6;
  const std::string message = gradient_mismatch(f, x, wrong);
  CHECK(message.find("element [2] (x=2): gradient 7.3890") != std::string::npos);
  CHECK(message.find("1 of 4 elements differ") != std::string::npos);

  wrong = right;
  wrong[3] = std::numeric_limits<double>::quiet_NaN();
  CHECK(gradient_mismatch(f, x, wrong).find("element [3]") != std::string::npos);
  CHECK(gradient_mismatch([] { return std::numeric_limits<double>::quiet_NaN(); }, x, right) != "");
  wrong.assign(4, 0.0);
  CHECK(gradient_mismatch(f, x, wrong).find("3 of 4 elements differ") != std::string::npos);
  wrong.pop_back();
  CHECK(gradient_mismatch(f, x, wrong) == "gradient check: expected a gradient as long as x, got 3 and 4 elements");
}

TEST_CASE("gradient_check: refuses a function that does not depend on its parameters", "[core]") {
  std::vector<double> x(3, 1.0);
  const std::vector<double> zero(3, 0.0);
  CHECK(gradient_mismatch([] { return 7.0; }, x, zero).find("expected a function that depends on x") !=
        std::string::npos);
}

TEST_CASE("gradient_check: samples and names", "[core]") {
  std::vector<double> x(1000, 1.0);
  int calls = 0;
  const auto f = [&] {
    ++calls;
    double sum = 0;
    for (const double v : x) sum += v * v / 2000;
    return sum;
  };
  std::vector<double> gradient(1000, 1.0 / 1000);
  gradient_options options;
  options.samples = 20;
  options.name = [](std::size_t i) { return "weight" + std::to_string(i / 10); };
  CHECK(gradient_mismatch(f, x, gradient, options) == "");
  CHECK(calls == 40);
  gradient.assign(1000, 1.1 / 1000);
  CHECK(gradient_mismatch(f, x, gradient, options).find("element weight") != std::string::npos);
}

}  // namespace gradient_check_tests
