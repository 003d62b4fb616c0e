// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <cmath>
#include <numbers>

#include <graft/core/error.hpp>
#include <graft/core/incomplete_beta.hpp>

namespace incomplete_beta_tests {

using namespace graft;

namespace {

const double points[] = {1e-6, 1e-3, 0.02, 0.1, 0.25, 0.4, 0.5, 0.61, 0.75, 0.9, 0.99, 1 - 1e-6};

bool near(double got, double want, double relative = 1e-12) {
  return std::abs(got - want) <= relative * std::abs(want);
}

}  // namespace

TEST_CASE("beta_distribution: closed forms", "[core]") {
  for (const double x : points) {
    CAPTURE(x);
    for (const double a : {0.5, 0.75, 1.0, 2.0, 7.0, 63.0}) {
      CAPTURE(a);
      CHECK(near(beta_distribution(a, 1).probability_below(x), std::pow(x, a)));
      // 1 - (1 - x)^a; expm1 keeps its digits for small x
      CHECK(near(beta_distribution(1, a).probability_below(x), -std::expm1(a * std::log1p(-x))));
      CHECK(near(beta_distribution(a, 1).density(x), a * std::pow(x, a - 1)));
    }
    // The arcsine distribution.
    CHECK(near(beta_distribution(0.5, 0.5).probability_below(x), 2 / std::numbers::pi * std::asin(std::sqrt(x))));
    CHECK(near(beta_distribution(0.5, 0.5).density(x), 1 / (std::numbers::pi * std::sqrt(x * (1 - x)))));
  }
}

// For whole numbers: the probability of at least a successes in a + b - 1 draws.
TEST_CASE("beta_distribution: the binomial sum", "[core]") {
  for (const int a : {2, 3, 9}) {
    for (const int b : {2, 5, 30}) {
      for (const double x : points) {
        CAPTURE(a, b, x);
        const int n = a + b - 1;
        double want = 0;
        for (int j = n; j >= a; --j)
          want += std::exp(std::lgamma(n + 1.0) - std::lgamma(j + 1.0) - std::lgamma(n - j + 1.0) + j * std::log(x) +
                           (n - j) * std::log1p(-x));
        CHECK(near(beta_distribution(a, b).probability_below(x), want));
      }
    }
  }
}

TEST_CASE("beta_distribution: symmetry, order and derivative", "[core]") {
  for (const double a : {0.75, 1.5, 4.0, 50.0}) {
    for (const double b : {0.6, 2.25, 100.0, 3000.0}) {
      const beta_distribution beta(a, b), mirrored(b, a);
      double before = 0;
      for (const double x : points) {
        CAPTURE(a, b, x);
        const double below = beta.probability_below(x);
        CHECK(std::abs(below + mirrored.probability_below(1 - x) - 1) <= 1e-10);  // 1 - x is rounded, and F steep
        CHECK(below >= before);
        CHECK(below <= 1 + 1e-14);
        before = below;
        // Central difference: h^2 / 6 times the third derivative, and rounding of F, about 1e-13, over h.
        const double h = 1e-5 * x * (1 - x), density = beta.density(x);
        const double slope = (beta.probability_below(x + h) - beta.probability_below(x - h)) / (2 * h);
        CHECK(std::abs(slope - density) <= 1e-5 * density + 1e-12 / h);
      }
    }
  }
}

TEST_CASE("beta_distribution: parameters that are not positive are refused", "[core]") {
  CHECK_THROWS_WITH(beta_distribution(0, 2), "beta_distribution: expected a > 0 and b > 0, got a=0, b=2");
  CHECK_THROWS_AS(beta_distribution(1, -1), error);
}

}  // namespace incomplete_beta_tests
