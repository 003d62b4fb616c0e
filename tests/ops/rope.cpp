// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/rope.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace rope_tests {

using namespace graft;
using namespace graft::test;

namespace {

constexpr index_t head_dim = 10, positions = 6;

transformer_shape small_shape() {
  transformer_shape shape;
  shape.head_dim = head_dim;
  shape.rope_theta = 50;
  return shape;
}

template <class T>
tensor<accumulator_t<T>> make_table(index_t rows) {
  tensor<accumulator_t<T>> table(rows, head_dim);
  table.values = rope_table<accumulator_t<T>>(small_shape(), rows);
  return table;
}

// Every pair (i, i + d/2) of a head is a complex number that turns by position * theta^(-2i/d).
tensor<double> rotated(const tensor<double>& qk, index_t heads, double direction, index_t first) {
  tensor<double> out = qk;
  for (index_t t = 0; t < qk.rows; ++t) {
    for (index_t h = 0; h < heads; ++h) {
      for (index_t i = 0; i < head_dim / 2; ++i) {
        const double angle =
            static_cast<double>(first + t % positions) / std::pow(50.0, 2.0 * static_cast<double>(i) / head_dim);
        const index_t low = h * head_dim + i, high = low + head_dim / 2;
        const auto turned = std::complex<double>(qk.at(t, low), qk.at(t, high)) * std::polar(1.0, direction * angle);
        out(t, low) = turned.real(), out(t, high) = turned.imag();
      }
    }
  }
  return out;
}

template <class T>
void check_values(const tensor<T>& got, const tensor<T>& from, index_t heads, double direction, index_t first = 0) {
  const tensor<double> want = rotated(from.wide(), heads, direction, first);
  // Two products and a sum with a rounded table: four operations. The op's angle and this one are each off by up to
  // four units of fp64, times the position.
  const double angle_error = 8 * 0x1p-53 * static_cast<double>(first + positions);
  CHECK(mismatch(got, want, [&](index_t t, index_t i) {
          const index_t at = i % head_dim, partner = at < head_dim / 2 ? i + head_dim / 2 : i - head_dim / 2;
          if (i >= heads * head_dim) return 0x1p-1000;  // not rotated: the same value
          const double magnitude = std::abs(from.at(t, i)) + std::abs(from.at(t, partner));
          return bound<T>(want.at(t, i), 4, magnitude) + angle_error * magnitude;
        }) == "");
}

// transformers, modeling_rope_utils.py, _compute_llama3_parameters, line by line.
std::vector<double> published_llama3(double base, index_t dim, double factor, double low_freq_factor,
                                     double high_freq_factor, double old_context_len) {
  std::vector<double> inv_freq;
  const double low_freq_wavelen = old_context_len / low_freq_factor;
  const double high_freq_wavelen = old_context_len / high_freq_factor;
  for (index_t i = 0; i < dim; i += 2) {
    const double frequency = 1.0 / std::pow(base, static_cast<double>(i) / static_cast<double>(dim));
    const double wavelen = 2 * std::numbers::pi / frequency;
    double inv_freq_llama = wavelen > low_freq_wavelen ? frequency / factor : frequency;
    const double smooth_factor = (old_context_len / wavelen - low_freq_factor) / (high_freq_factor - low_freq_factor);
    const double smoothed = (1 - smooth_factor) * inv_freq_llama / factor + smooth_factor * inv_freq_llama;
    const bool is_medium = !(wavelen < high_freq_wavelen) && !(wavelen > low_freq_wavelen);
    if (is_medium) inv_freq_llama = smoothed;
    inv_freq.push_back(inv_freq_llama);
  }
  return inv_freq;
}

}  // namespace

TEMPLATE_TEST_CASE("rope: values forward and backward", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> ctx(context_options{1});
  shuffled_context shuffled(5);
  // Rows go on over the end of the sequence: row t stands at position t mod 6. Four heads, of which some turn.
  const index_t tokens = GENERATE(1, 6, 17), heads = GENERATE(0, 1, 3, 4);
  CAPTURE(tokens, heads);
  const tensor<T> from = tensor<T>::random(tokens, 4 * head_dim, 1);
  const auto table = make_table<T>(positions + 2);  // a table may be longer than the sequence
  tensor<T> forward = from, backward = from, any_order = from;
  rope_forward(ctx, forward.matrix(), table.matrix(), heads, positions);
  check_values(forward, from, heads, 1);
  rope_backward(ctx, backward.matrix(), table.matrix(), heads, positions);
  check_values(backward, from, heads, -1);
  rope_forward(shuffled, any_order.matrix(), table.matrix(), heads, positions);
  check_values(any_order, from, heads, 1);

  const auto later_table = make_table<T>(40 + positions);
  tensor<T> later = from;
  rope_forward(ctx, later.matrix(), later_table.matrix(), heads, positions, index_t{40});
  check_values(later, from, heads, 1, 40);
}

TEMPLATE_TEST_CASE("rope: backward undoes forward", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> ctx(context_options{1});
  const tensor<T> from = tensor<T>::random(12, 2 * head_dim, 1);
  const auto table = make_table<T>(positions);
  tensor<T> there = from;
  rope_forward(ctx, there.matrix(), table.matrix(), 2, positions);
  CHECK(!same_bits(there, from));
  rope_backward(ctx, there.matrix(), table.matrix(), 2, positions);
  // Each way rounds once to T and some times to M; a rotation spreads an error over the pair.
  CHECK(mismatch(there, from.wide(), [&](index_t t, index_t i) {
          const index_t partner = i % head_dim < head_dim / 2 ? i + head_dim / 2 : i - head_dim / 2;
          const double length = std::hypot(from.at(t, i), from.at(t, partner));
          return 3 * bound<T>(length, 10, length);
        }) == "");
}

TEMPLATE_TEST_CASE("rope: the same bits on one thread and on two", "[ops]", double, float, bfloat16) {
  using T = TestType;
  context<cpu> one(context_options{1}), two(context_options{2});
  const auto table = make_table<T>(positions);
  tensor<T> a = tensor<T>::random(4000, 3 * head_dim, 1), b = a;
  rope_forward(one, a.matrix(), table.matrix(), 2, positions);
  rope_forward(two, b.matrix(), table.matrix(), 2, positions);
  CHECK(same_bits(a, b));
}

TEST_CASE("rope: a score depends on the distance of two positions alone", "[ops]") {
  context<cpu> ctx(context_options{1});
  const tensor<double> q = tensor<double>::random(1, head_dim, 1), k = tensor<double>::random(1, head_dim, 2);
  tensor<double> queries(positions, head_dim), keys(positions, head_dim);
  for (index_t t = 0; t < positions; ++t)
    for (index_t i = 0; i < head_dim; ++i) queries(t, i) = q.at(0, i), keys(t, i) = k.at(0, i);
  const auto table = make_table<double>(positions);
  rope_forward(ctx, queries.matrix(), table.matrix(), 1, positions);
  rope_forward(ctx, keys.matrix(), table.matrix(), 1, positions);
  const tensor<double> scores = reference_linear(queries, keys);
  for (index_t s = 1; s < positions; ++s)
    for (index_t t = 1; t < positions; ++t) CHECK(std::abs(scores.at(s, t) - scores.at(s - 1, t - 1)) < 1e-13);
  CHECK(std::abs(scores.at(3, 0) - scores.at(0, 0)) > 1e-3);
}

TEST_CASE("rope: gradient by central differences", "[ops]") {
  context<cpu> ctx(context_options{1});
  tensor<double> x = tensor<double>::random(7, 2 * head_dim, 1);
  const tensor<double> upstream = tensor<double>::random(7, 2 * head_dim, 2);
  const auto table = make_table<double>(positions);
  const auto f = [&] {
    tensor<double> y = x;
    rope_forward(ctx, y.matrix(), table.matrix(), 1, positions);
    double sum = 0;
    for (std::size_t i = 0; i < y.values.size(); ++i) sum += upstream.values[i] * y.values[i];
    return sum;
  };
  tensor<double> gradient = upstream;
  rope_backward(ctx, gradient.matrix(), table.matrix(), 1, positions);
  CHECK(gradient_mismatch(f, x.values, gradient.values) == "");
}

TEST_CASE("rope: plain frequencies", "[ops]") {
  const std::vector<double> f = rope_frequencies(small_shape());
  REQUIRE(f.size() == 5);
  CHECK(f[0] == 1);
  for (std::size_t i = 0; i < f.size(); ++i)
    CHECK(std::abs(f[i] * std::pow(50.0, static_cast<double>(i) / 5) - 1) < 1e-14);
  // The scaling's other numbers mean nothing when its factor is 1.
  transformer_shape shape = small_shape();
  shape.scaling = {1.0, 2.0, 3.0, 16};
  CHECK(rope_frequencies(shape) == f);
}

TEST_CASE("rope: Llama-3 scaling as published", "[ops]") {
  struct published {
    double theta, factor, low, high;
    index_t dim, original;
  };
  // Llama 3.1 8B, Llama 3.2 1B, and a small one in which every kind of wavelength occurs.
  for (const published& p : {published{500000, 8, 1, 4, 128, 8192}, published{500000, 32, 1, 4, 64, 8192},
                             published{10000, 4, 1, 4, 32, 512}, published{10000, 2.5, 2, 3, 32, 100}}) {
    CAPTURE(p.factor, p.dim, p.original);
    transformer_shape shape;
    shape.head_dim = p.dim;
    shape.rope_theta = p.theta;
    shape.scaling = {p.factor, p.low, p.high, p.original};
    const std::vector<double> got = rope_frequencies(shape),
                              want = published_llama3(p.theta, p.dim, p.factor, p.low, p.high,
                                                      static_cast<double>(p.original));
    transformer_shape plain = shape;
    plain.scaling = {};
    const std::vector<double> unscaled = rope_frequencies(plain);
    REQUIRE(got.size() == want.size());
    int kept = 0, divided = 0, blended = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      CHECK(std::abs(got[i] / want[i] - 1) < 1e-13);
      if (got[i] == unscaled[i]) {
        ++kept;
      } else if (std::abs(got[i] * p.factor / unscaled[i] - 1) < 1e-14) {
        ++divided;
      } else {
        ++blended;
      }
    }
    CHECK(kept > 0);
    CHECK(divided > 0);
    CHECK(blended > 0);
    CHECK(got.front() == 1);  // the shortest wavelength is kept
    CHECK(got.back() == unscaled.back() / p.factor);
  }
}

TEST_CASE("rope: the table holds cosines, then sines, of position times frequency", "[ops]") {
  const std::vector<double> table = rope_table<double>(small_shape(), 3);
  const std::vector<float> narrow_table = rope_table<float>(small_shape(), 3);
  REQUIRE(table.size() == 30);
  REQUIRE(narrow_table.size() == 30);
  for (std::size_t position = 0; position < 3; ++position) {
    for (std::size_t i = 0; i < 5; ++i) {
      const double angle = static_cast<double>(position) / std::pow(50.0, static_cast<double>(i) / 5);
      const double error = (8 * angle + 2) * 0x1p-53;  // as above, and the rounding of two functions
      CHECK(std::abs(table[position * 10 + i] - std::cos(angle)) <= error);
      CHECK(std::abs(table[position * 10 + 5 + i] - std::sin(angle)) <= error);
      CHECK(narrow_table[position * 10 + i] == static_cast<float>(table[position * 10 + i]));
    }
  }
}

}  // namespace rope_tests
