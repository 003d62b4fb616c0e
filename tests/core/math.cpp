// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <graft/core/math.hpp>

namespace math_tests {

using namespace graft;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float log_of_largest = 88.72283f;  // the largest float whose exponential is finite

// Floats from `from` to `to` of one sign, every stride-th, ascending in magnitude.
template <class F>
void sweep(float from, float to, std::uint32_t stride, F f) {
  for (std::uint32_t bits = std::bit_cast<std::uint32_t>(from); bits <= std::bit_cast<std::uint32_t>(to);
       bits += stride)
    f(std::bit_cast<float>(bits));
}

double worst_relative_error(float from, float to, std::uint32_t stride) {
  double worst = 0;
  sweep(from, to, stride, [&](float x) {
    const long double exact = std::exp(static_cast<long double>(x));
    const auto error = static_cast<double>(std::abs((static_cast<long double>(math::exp(x)) - exact) / exact));
    if (!(error <= worst)) worst = error;  // NaN too
  });
  return worst;
}

}  // namespace

TEST_CASE("math: exp in fp32 is within 3e-7 where it is documented to be", "[core]") {
  CHECK(worst_relative_error(0.0f, log_of_largest, 1499) < 3e-7);  // from 0 up, denormals too
  CHECK(worst_relative_error(-0.0f, -87.3f, 1499) < 3e-7);
  CHECK(worst_relative_error(0.1f, 0.8f, 101) < 3e-7);           // around the first change of n
  CHECK(worst_relative_error(88.0f, log_of_largest, 1) < 3e-7);  // the last steps before infinity
  CHECK(worst_relative_error(-86.5f, -87.3f, 1) < 3e-7);
}

TEST_CASE("math: exp in fp32 at the extremes", "[core]") {
  CHECK(math::exp(0.0f) == 1.0f);
  CHECK(math::exp(-0.0f) == 1.0f);
  CHECK(std::isfinite(math::exp(log_of_largest)));
  CHECK(math::exp(std::nextafter(log_of_largest, infinity)) == infinity);
  CHECK(math::exp(1000.0f) == infinity);
  CHECK(math::exp(std::numeric_limits<float>::max()) == infinity);
  CHECK(math::exp(infinity) == infinity);
  CHECK(math::exp(-87.3f) > 0.0f);
  CHECK(math::exp(-88.0f) == 0.0f);
  CHECK(math::exp(std::numeric_limits<float>::lowest()) == 0.0f);
  CHECK(math::exp(-infinity) == 0.0f);
  CHECK(std::isnan(math::exp(std::numeric_limits<float>::quiet_NaN())));
  CHECK(std::isnan(math::exp(-std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("math: exp in fp32 never falls by more than a unit in the last place", "[core]") {
  // Two neighbours may be rounded to different sides: a fall of one unit, 2^-23, is what rounding alone allows.
  double worst = 0;
  float before = 0;
  const auto step = [&](float x) {
    const float now = math::exp(x);
    if (now < before) worst = std::max(worst, static_cast<double>((before - now) / before));
    before = now;
  };
  sweep(0.3f, 0.4f, 1, step);
  before = 0;
  sweep(1.0f, log_of_largest, 701, step);
  before = 0;
  sweep(60.0f, 61.0f, 1, step);
  before = 0;
  for (float x = -88.0f; x < -0.5f; x = std::nextafter(x * (1 - 0x1p-18f), 0.0f)) step(x);
  CHECK(worst <= 0x1p-23);
}

TEST_CASE("math: exp in a vectorised loop gives the bits of a single call", "[core]") {
  std::vector<float> x(1003), y(1003);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.2f * (static_cast<float>(i) - 500.0f);
  x[7] = std::numeric_limits<float>::quiet_NaN();
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = math::exp(x[i]);
  int wrong = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    volatile float one = x[i];
    if (std::bit_cast<std::uint32_t>(math::exp(one)) != std::bit_cast<std::uint32_t>(y[i])) ++wrong;
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("math: sigmoid and silu", "[core]", float, double) {
  using T = TestType;
  // exp is off by 5 units roundoff in fp32, by 1 in fp64; two operations follow.
  const double tolerance = std::is_same_v<T, float> ? 8 * 0x1p-24 : 4 * 0x1p-53;
  double worst_sigmoid = 0, worst_silu = 0;
  for (int i = -800; i <= 800; ++i) {
    const T x = static_cast<T>(i) / 10;
    const long double exact = 1 / (1 + std::exp(-static_cast<long double>(x)));
    const auto sigmoid_error = static_cast<double>(std::abs((math::sigmoid(x) - exact) / exact));
    worst_sigmoid = std::max(worst_sigmoid, sigmoid_error);
    if (i != 0)
      worst_silu = std::max(worst_silu, static_cast<double>(std::abs((math::silu(x) - x * exact) / (x * exact))));
  }
  CHECK(worst_sigmoid < tolerance);
  CHECK(worst_silu < tolerance + 2 * 0x1p-24 * std::is_same_v<T, float> + 0x1p-53);
  CHECK(math::sigmoid(T(0)) == T(0.5));
  CHECK(math::sigmoid(T(1000)) == T(1));
  CHECK(math::sigmoid(T(-1000)) == T(0));
  CHECK(math::silu(T(0)) == T(0));
  CHECK(math::silu(T(1000)) == T(1000));
  CHECK(math::silu(T(-1000)) == T(0));
}

TEST_CASE("math: double goes to libm", "[core]") {
  CHECK(math::exp(1.0) == std::exp(1.0));
  CHECK(math::exp(-700.0) == std::exp(-700.0));
  CHECK(math::log(3.0) == std::log(3.0));
  CHECK(math::sqrt(2.0) == std::sqrt(2.0));
  CHECK(math::log(3.0f) == std::log(3.0f));
  CHECK(math::sqrt(2.0f) == std::sqrt(2.0f));
}

}  // namespace math_tests
