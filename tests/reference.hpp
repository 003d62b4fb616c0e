// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What numeric tests share: tensors of any element type on the host, bounds of rounding errors, and naive references in
// double precision, written from the equations and from nothing else.
//
// How tolerances are derived here. u(T) is the unit roundoff of T. An op reads inputs that are exact in T, computes in
// the accumulator type M and rounds its result to T once. So |got - want| <= u(T) |want| + n u(M) m, where n counts the
// operations of M on the longest way from an input to the result (the length of a reduction in the first place) and m
// is the result of the same computation with every term replaced by its absolute value.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numbers>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <graft/core/dtype.hpp>
#include <graft/core/philox.hpp>
#include <graft/core/view.hpp>

namespace graft::test {

template <class T>
inline constexpr double unit_roundoff = std::is_same_v<T, double>  ? 0x1p-53
                                        : std::is_same_v<T, float> ? 0x1p-24
                                                                   : 0x1p-8;

// The bound above. Doubled in fp64, where the reference errs as much as the op; 2^-120 keeps it true where a result is
// too small for a normal number of fp32.
template <class T>
double bound(double want, double operations, double magnitude) {
  const double error = unit_roundoff<T> * std::abs(want) + operations * unit_roundoff<accumulator_t<T>> * magnitude;
  return (std::is_same_v<T, double> ? 2 : 1.0001) * error + 0x1p-120;
}

template <class T>
double widen(T value) {
  return static_cast<double>(static_cast<accumulator_t<T>>(value));
}
template <class T>
T narrow(double value) {
  return T(static_cast<accumulator_t<T>>(value));
}

// A matrix (or a vector: one row) that owns its elements.
template <class T>
struct tensor {
  index_t rows = 0, columns = 0;
  std::vector<T> values;

  tensor() = default;
  explicit tensor(index_t r, index_t c, double fill = 0)
      : rows(r), columns(c), values(static_cast<std::size_t>(r * c), narrow<T>(fill)) {}

  // Normal values, the same for the same seed, whatever the type up to rounding.
  static tensor random(index_t r, index_t c, std::uint64_t seed, double stddev = 1) {
    tensor result(r, c);
    const random_source source{seed, random_stream::data};
    for (std::size_t i = 0; i < result.values.size(); ++i) result.values[i] = narrow<T>(stddev * source.normal(0, i));
    return result;
  }

  T& operator()(index_t r, index_t c) { return values[static_cast<std::size_t>(r * columns + c)]; }
  double at(index_t r, index_t c = 0) const { return widen(values[static_cast<std::size_t>(r * columns + c)]); }
  view<T, 2> matrix() { return view<T, 2>(values.data(), rows, columns); }
  view<const T, 2> matrix() const { return view<const T, 2>(values.data(), rows, columns); }
  view<T, 1> vector() { return view<T, 1>(values.data(), rows * columns); }
  view<const T, 1> vector() const { return view<const T, 1>(values.data(), rows * columns); }
  tensor<double> wide() const {
    tensor<double> result(rows, columns);
    for (std::size_t i = 0; i < values.size(); ++i) result.values[i] = widen(values[i]);
    return result;
  }
};

// "" if |got - want| <= tolerance(row, column) everywhere, else a sentence with the element that is furthest outside.
template <class T, class Tolerance>
std::string mismatch(const tensor<T>& got, const tensor<double>& want, const Tolerance& tolerance) {
  if (got.rows != want.rows || got.columns != want.columns) return "different shapes";
  std::ostringstream message;
  message.precision(12);
  double worst = 1;
  for (index_t r = 0; r < got.rows; ++r) {
    for (index_t c = 0; c < got.columns; ++c) {
      const double allowed = tolerance(r, c), excess = std::abs(got.at(r, c) - want.at(r, c)) / allowed;
      if (excess <= worst) continue;
      worst = std::isnan(excess) ? std::numeric_limits<double>::infinity() : excess;
      message.str("");
      message << "element (" << r << ", " << c << "): got " << got.at(r, c) << ", want " << want.at(r, c) << " within "
              << allowed;
    }
  }
  return message.str();
}

template <class T>
bool same_bits(const tensor<T>& a, const tensor<T>& b) {
  if (a.values.size() != b.values.size()) return false;
  return a.values.empty() || std::memcmp(a.values.data(), b.values.data(), a.values.size() * sizeof(T)) == 0;
}

// ---- naive references
// ------------------------------------------------------------------------------------------------

// y = x w^T
inline tensor<double> reference_linear(const tensor<double>& x, const tensor<double>& w) {
  tensor<double> y(x.rows, w.rows);
  for (index_t t = 0; t < x.rows; ++t)
    for (index_t o = 0; o < w.rows; ++o)
      for (index_t i = 0; i < x.columns; ++i) y(t, o) += x.at(t, i) * w.at(o, i);
  return y;
}

// y = x / sqrt(mean(x^2) + eps) * w
inline tensor<double> reference_rms_norm(const tensor<double>& x, const tensor<double>& w, double eps) {
  tensor<double> y(x.rows, x.columns);
  for (index_t t = 0; t < x.rows; ++t) {
    double square = 0;
    for (index_t i = 0; i < x.columns; ++i) square += x.at(t, i) * x.at(t, i);
    for (index_t i = 0; i < x.columns; ++i)
      y(t, i) = x.at(t, i) / std::sqrt(square / static_cast<double>(x.columns) + eps) * w.at(0, i);
  }
  return y;
}

// y = silu(gate) * up
inline tensor<double> reference_swiglu(const tensor<double>& gate_up) {
  const index_t hidden = gate_up.columns / 2;
  tensor<double> y(gate_up.rows, hidden);
  for (index_t t = 0; t < y.rows; ++t)
    for (index_t i = 0; i < hidden; ++i)
      y(t, i) = gate_up.at(t, i) / (1 + std::exp(-gate_up.at(t, i))) * gate_up.at(t, hidden + i);
  return y;
}

// p = softmax(logits), row by row
inline tensor<double> reference_softmax(const tensor<double>& logits) {
  tensor<double> p(logits.rows, logits.columns);
  for (index_t t = 0; t < p.rows; ++t) {
    double top = logits.at(t, 0), sum = 0;
    for (index_t v = 0; v < p.columns; ++v) top = std::max(top, logits.at(t, v));
    for (index_t v = 0; v < p.columns; ++v) sum += std::exp(logits.at(t, v) - top);
    for (index_t v = 0; v < p.columns; ++v) p(t, v) = std::exp(logits.at(t, v) - top) / sum;
  }
  return p;
}

}  // namespace graft::test
