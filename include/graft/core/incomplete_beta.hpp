// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The Beta distribution: its density and its distribution function, the regularised incomplete beta function.

#include <cmath>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

// Beta(a, b) on [0, 1]. Made on the host, evaluated anywhere.
class beta_distribution {
 public:
  // Requires: a > 0, b > 0. Errors: otherwise.
  beta_distribution(double a, double b)
      : a_(checked(a, a, b)), b_(checked(b, a, b)), log_beta_(std::lgamma(a) + std::lgamma(b) - std::lgamma(a + b)) {}

  // x^(a-1) (1-x)^(b-1) / B(a, b). Requires: 0 < x < 1.
  GRAFT_HOST_DEVICE double density(double x) const { return kernel(x) / (x * (1 - x)); }

  // I_x(a, b): the probability of a value below x. Requires: 0 < x < 1. Relative error about 1e-13 for a and b up to
  // a thousand, which the logarithm of B(a, b) limits.
  // Cost: about sqrt(max(a, b)) terms of a continued fraction. Source: NIST Digital Library of Mathematical Functions,
  // 8.17.22, with the symmetry I_x(a, b) = 1 - I_{1-x}(b, a), 8.17.4, where it converges faster.
  GRAFT_HOST_DEVICE double probability_below(double x) const {
    const bool direct = x * (a_ + b_ + 2) < a_ + 1;
    return direct ? kernel(x) * fraction(x, a_, b_) / a_ : 1 - kernel(x) * fraction(1 - x, b_, a_) / b_;
  }

 private:
  static double checked(double value, double a, double b) {
    GRAFT_CHECK(a > 0 && b > 0, "beta_distribution: expected a > 0 and b > 0, got a=", a, ", b=", b);
    return value;
  }
  // x^a (1-x)^b / B(a, b)
  GRAFT_HOST_DEVICE double kernel(double x) const { return ::exp(a_ * ::log(x) + b_ * ::log1p(-x) - log_beta_); }

  // 1 / (1 + d_1 / (1 + d_2 / (1 + ...))) from the front: c and d are the ratios of consecutive numerators and
  // denominators (the method of Lentz).
  GRAFT_HOST_DEVICE static double fraction(double x, double a, double b) {
    constexpr double least = 1e-300;  // in place of a zero that would be divided by
    const auto nonzero = [](double value) { return ::fabs(value) < least ? least : value; };
    double c = 1, d = 1 / nonzero(1 - (a + b) * x / (a + 1)), result = d;
    for (int m = 1; m <= 10000; ++m) {
      const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 / nonzero(1 + even * d);
      c = nonzero(1 + even / c);
      result *= c * d;
      const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 / nonzero(1 + odd * d);
      c = nonzero(1 + odd / c);
      result *= c * d;
      if (::fabs(c * d - 1) < 4e-16) break;
    }
    return result;
  }

  double a_, b_, log_beta_;
};

}  // namespace graft
