// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Attention against a naive reference in fp64, both ways it is computed on the CPU: row algorithms and blocks.

#include <graft/backend/cpu/context.hpp>
#include <graft/backend/cpu/rows.hpp>
#include <graft/core/philox.hpp>
#include <graft/ops/attention.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"

namespace attention_tests {

namespace {

using namespace graft;

// A matrix with rows further apart than they are wide, so that a wrong stride shows.
template <class T>
struct matrix {
  static constexpr index_t gap = 3;
  index_t rows, columns;
  std::vector<T> values;

  matrix(index_t r, index_t c) : rows(r), columns(c), values(r * (c + gap), T(-7.0f)) {}
  matrix_view<T> view() {
    matrix_view<T> result(values.data(), rows, columns);
    result.strides[0] = columns + gap;
    return result;
  }
  T& operator()(index_t r, index_t c) { return values[r * (columns + gap) + c]; }
  double at(index_t r, index_t c) const { return static_cast<double>(values[r * (columns + gap) + c]); }
  bool same_bits(const matrix& other) const {
    return std::memcmp(values.data(), other.values.data(), values.size() * sizeof(T)) == 0;
  }
  bool gaps_untouched() const {
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = columns; c < columns + gap; ++c)
        if (at(r, c) != -7.0) return false;
    return true;
  }
};

// Uniform in [-size, size].
template <class T>
matrix<T> random_matrix(index_t rows, index_t columns, std::uint64_t seed, double size = 1.0) {
  matrix<T> result(rows, columns);
  const random_source random{seed};
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c)
      result(r, c) = T(static_cast<accumulator_t<T>>(size * (2.0 * random.uniform(random.words(r, c).word[0]) - 1.0)));
  return result;
}

enum class method { rows, chosen };  // chosen: what the public function takes

template <class T>
struct results {
  using M = accumulator_t<T>;
  matrix<T> out;
  matrix<M> log_sum_exp;
  matrix<T> d_qkv;
};

template <class T>
results<T> compute(const attention_shape& shape, matrix<T>& qkv, matrix<T>& d_out, method how, int threads = 2) {
  using M = accumulator_t<T>;
  context<cpu> ctx({.threads = threads});
  results<T> r{matrix<T>(shape.tokens(), shape.out_width()), matrix<M>(shape.tokens(), shape.heads),
               matrix<T>(shape.tokens(), shape.qkv_width())};
  if (how == method::rows) {
    detail::attention_forward_rows<context<cpu>, T, host_space>(ctx, r.out.view(), r.log_sum_exp.view(), qkv.view(),
                                                                shape);
    detail::attention_backward_rows<context<cpu>, T, host_space>(ctx, r.d_qkv.view(), d_out.view(), r.out.view(),
                                                                 r.log_sum_exp.view(), qkv.view(), shape);
  } else {
    attention_forward(ctx, r.out.view(), r.log_sum_exp.view(), qkv.view(), shape);
    attention_backward(ctx, r.d_qkv.view(), d_out.view(), r.out.view(), r.log_sum_exp.view(), qkv.view(), shape);
  }
  return r;
}

// Rounding, for inputs in [-1, 1] and e = the machine epsilon of the arithmetic. Rounding errors add as a random
// walk; factors of 2 to 4 are room for its tails.
//   product of two heads   2 d e          d steps that each round a partial sum of about sqrt(d)
//   weight p, relative     w = 2 d e / sqrt(d) + 8 e     its score, and exp
//   ds = p (dp - delta)    g = 4 sqrt(d) w + 4 d e       times p; |dp - delta| < 4 sqrt(d) (12 standard deviations)
//   sum of n               2 sqrt(n) e    times the sum of magnitudes
// A stored result adds half a unit in the last place of its type.
template <class T>
struct tolerances {
  double weight, gradient, epsilon, storage;

  explicit tolerances(index_t head_dim)
      : epsilon(std::numeric_limits<accumulator_t<T>>::epsilon()),
        storage(std::is_same_v<T, bfloat16> ? 1.0 / 256 : epsilon) {
    const double d = static_cast<double>(head_dim);
    weight = 2.0 * std::sqrt(d) * epsilon + 8.0 * epsilon;
    gradient = 4.0 * std::sqrt(d) * weight + 4.0 * d * epsilon;
  }
  double sum(index_t n) const { return 2.0 * std::sqrt(static_cast<double>(n)) * epsilon; }
};

bool near(double value, double expected, double tolerance) { return std::abs(value - expected) <= tolerance; }

// Compares with the definition, in fp64. The backward pass is compared as what it is: a function of qkv, d_out, and
// the stored out and log_sum_exp. Returns the number of elements that differ.
template <class T>
void check_against_reference(const attention_shape& s, const matrix<T>& qkv, const matrix<T>& d_out,
                             const results<T>& r) {
  const tolerances<T> tolerance(s.head_dim);
  const index_t d = s.head_dim;
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  std::vector<double> dk(s.tokens() * s.kv_heads * d), dv(dk.size()), weight_sum(s.tokens() * s.kv_heads);
  index_t wrong_out = 0, wrong_log = 0, wrong_dq = 0, wrong_dk = 0, wrong_dv = 0;

  for (index_t t = 0; t < s.tokens(); ++t)
    for (index_t h = 0; h < s.heads; ++h) {
      const index_t g = h / s.group(), first = t - t % s.positions, n = t - first + 1;
      std::vector<double> p(n), out(d), dq(d);
      double total = 0, delta = 0;
      for (index_t j = 0; j < n; ++j) {
        double score = 0;
        for (index_t c = 0; c < d; ++c) score += qkv.at(t, s.query(h) + c) * qkv.at(first + j, s.key(g) + c);
        total += p[j] = std::exp(score * scale);
      }
      for (index_t j = 0; j < n; ++j)
        for (index_t c = 0; c < d; ++c) out[c] += p[j] / total * qkv.at(first + j, s.value(g) + c);
      for (index_t c = 0; c < d; ++c) {
        wrong_out += !near(r.out.at(t, h * d + c), out[c],
                           2 * tolerance.weight + 2 * tolerance.sum(n) + tolerance.storage * std::abs(out[c]));
        delta += d_out.at(t, h * d + c) * r.out.at(t, h * d + c);
      }
      const double log_sum = std::log(total), stored = r.log_sum_exp.at(t, h);
      wrong_log +=
          !near(stored, log_sum, tolerance.weight + tolerance.sum(n) + 4 * tolerance.epsilon * (1 + std::abs(log_sum)));

      for (index_t j = 0; j < n; ++j) {
        const double weight = p[j] * std::exp(-stored);
        double dp = 0;
        for (index_t c = 0; c < d; ++c) dp += d_out.at(t, h * d + c) * qkv.at(first + j, s.value(g) + c);
        const double ds = weight * (dp - delta) * scale;
        const index_t key = (first + j) * s.kv_heads + g;
        weight_sum[key] += weight;
        for (index_t c = 0; c < d; ++c) {
          dq[c] += ds * qkv.at(first + j, s.key(g) + c);
          dk[key * d + c] += ds * qkv.at(t, s.query(h) + c);
          dv[key * d + c] += weight * d_out.at(t, h * d + c);
        }
      }
      for (index_t c = 0; c < d; ++c)
        wrong_dq += !near(
            r.d_qkv.at(t, s.query(h) + c), dq[c],
            scale * (tolerance.gradient + tolerance.sum(n) * 4 * std::sqrt(d)) + tolerance.storage * std::abs(dq[c]));
    }
  for (index_t t = 0; t < s.tokens(); ++t)
    for (index_t g = 0; g < s.kv_heads; ++g)
      for (index_t c = 0; c < d; ++c) {
        const index_t key = t * s.kv_heads + g, n = (s.positions - t % s.positions) * s.group();
        const double a = dk[key * d + c], b = dv[key * d + c], sum = weight_sum[key];
        wrong_dk += !near(
            r.d_qkv.at(t, s.key(g) + c), a,
            scale * sum * (tolerance.gradient + tolerance.sum(n) * 4 * std::sqrt(d)) + tolerance.storage * std::abs(a));
        wrong_dv += !near(r.d_qkv.at(t, s.value(g) + c), b,
                          sum * (tolerance.weight + tolerance.sum(n)) + tolerance.storage * std::abs(b));
      }
  CHECK(wrong_out == 0);
  CHECK(wrong_log == 0);
  CHECK(wrong_dq == 0);
  CHECK(wrong_dk == 0);
  CHECK(wrong_dv == 0);
  CHECK(r.out.gaps_untouched());
  CHECK(r.log_sum_exp.gaps_untouched());
  CHECK(r.d_qkv.gaps_untouched());
}

std::string describe(const attention_shape& s) {
  return "B=" + std::to_string(s.sequences) + " S=" + std::to_string(s.positions) + " H=" + std::to_string(s.heads) +
         " G=" + std::to_string(s.kv_heads) + " d=" + std::to_string(s.head_dim);
}

// One token; G = 1, G = H and between; one block, exactly two, a few rows more; odd head sizes, one and more vectors.
const attention_shape shapes[] = {{2, 1, 2, 1, 5},   {3, 7, 4, 4, 64},   {2, 64, 2, 2, 16},  {1, 65, 4, 1, 7},
                                  {2, 128, 2, 1, 1}, {1, 150, 4, 2, 48}, {1, 201, 3, 3, 33}, {1, 130, 2, 1, 100}};

template <class T>
void check_all_shapes(method how) {
  for (const attention_shape& shape : shapes) {
    INFO(describe(shape));
    auto qkv = random_matrix<T>(shape.tokens(), shape.qkv_width(), 1);
    auto d_out = random_matrix<T>(shape.tokens(), shape.out_width(), 2);
    check_against_reference(shape, qkv, d_out, compute(shape, qkv, d_out, how));
  }
}

template <class T>
void check_same_bits_for_threads() {
  // The last two have fewer (sequence, kv head) pairs than threads.
  for (const attention_shape& shape : {attention_shape{3, 100, 4, 2, 24}, {1, 150, 4, 2, 48}, {1, 321, 3, 1, 20}}) {
    INFO(describe(shape));
    auto qkv = random_matrix<T>(shape.tokens(), shape.qkv_width(), 3);
    auto d_out = random_matrix<T>(shape.tokens(), shape.out_width(), 4);
    const auto one = compute(shape, qkv, d_out, method::chosen, 1);
    for (int threads : {2, 3, 5}) {
      const auto many = compute(shape, qkv, d_out, method::chosen, threads);
      CHECK(one.out.same_bits(many.out));
      CHECK(one.log_sum_exp.same_bits(many.log_sum_exp));
      CHECK(one.d_qkv.same_bits(many.d_qkv));
    }
  }
}

}  // namespace

TEST_CASE("attention: row algorithms agree with the definition", "[ops][attention][slow]") {
  SECTION("fp64") { check_all_shapes<double>(method::rows); }
  SECTION("fp32") { check_all_shapes<float>(method::rows); }
  SECTION("bf16") { check_all_shapes<bfloat16>(method::rows); }
}

TEST_CASE("attention: the CPU's choice agrees with the definition", "[ops][attention]") {
  SECTION("fp64") { check_all_shapes<double>(method::chosen); }
  SECTION("fp32") { check_all_shapes<float>(method::chosen); }
  SECTION("bf16") { check_all_shapes<bfloat16>(method::chosen); }
}

TEST_CASE("attention: fp32 arithmetic on the CPU goes in blocks", "[ops][attention]") {
  STATIC_REQUIRE(detail::attention_in_blocks<context<cpu>, float>);
  STATIC_REQUIRE(detail::attention_in_blocks<context<cpu>, bfloat16>);
  STATIC_REQUIRE(!detail::attention_in_blocks<context<cpu>, double>);
}

TEST_CASE("attention: gradients agree with finite differences", "[ops][attention]") {
  const attention_shape shape =
      GENERATE(attention_shape{2, 6, 4, 2, 5}, attention_shape{1, 4, 2, 1, 3}, attention_shape{1, 5, 3, 3, 2});
  auto qkv = random_matrix<double>(shape.tokens(), shape.qkv_width(), 7, 1.5);
  auto d_out = random_matrix<double>(shape.tokens(), shape.out_width(), 8);
  const auto analytic = compute(shape, qkv, d_out, method::chosen);

  context<cpu> ctx({.threads = 1});
  const auto loss = [&] {  // <d_out, out>
    matrix<double> out(shape.tokens(), shape.out_width()), log_sum_exp(shape.tokens(), shape.heads);
    attention_forward(ctx, out.view(), log_sum_exp.view(), qkv.view(), shape);
    double total = 0;
    for (index_t t = 0; t < shape.tokens(); ++t)
      for (index_t c = 0; c < shape.out_width(); ++c) total += d_out.at(t, c) * out.at(t, c);
    return total;
  };
  // Central differences: step^2 / 6 times the third derivative (below 100 here), plus 1e-15 * |loss| / step.
  const double step = 1e-5, tolerance = 1e-8;
  for (index_t t = 0; t < shape.tokens(); ++t)
    for (index_t c = 0; c < shape.qkv_width(); ++c) {
      const double kept = qkv.at(t, c);
      qkv(t, c) = kept + step;
      const double above = loss();
      qkv(t, c) = kept - step;
      const double below = loss();
      qkv(t, c) = kept;
      REQUIRE(std::abs((above - below) / (2 * step) - analytic.d_qkv.at(t, c)) < tolerance);
    }
}

TEST_CASE("attention: the same bits for any number of threads", "[ops][attention][slow]") {
  SECTION("fp64") { check_same_bits_for_threads<double>(); }
  SECTION("fp32") { check_same_bits_for_threads<float>(); }
  SECTION("bf16") { check_same_bits_for_threads<bfloat16>(); }
}

TEST_CASE("attention: a sequence's first token gets its own value", "[ops][attention]") {
  const attention_shape shape{3, 70, 2, 1, 12};
  auto qkv = random_matrix<float>(shape.tokens(), shape.qkv_width(), 9);
  auto d_out = random_matrix<float>(shape.tokens(), shape.out_width(), 10);
  const auto r = compute(shape, qkv, d_out, method::chosen);
  for (index_t b = 0; b < shape.sequences; ++b)
    for (index_t c = 0; c < shape.out_width(); ++c)
      REQUIRE(r.out.at(b * shape.positions, c) == qkv.at(b * shape.positions, shape.value(0) + c % shape.head_dim));
}

TEST_CASE("attention: scores of thousands neither overflow nor lose the largest", "[ops][attention]") {
  const attention_shape shape{1, 100, 2, 1, 16};
  auto qkv = random_matrix<float>(shape.tokens(), shape.qkv_width(), 11);
  auto d_out = random_matrix<float>(shape.tokens(), shape.out_width(), 12);
  // One key, at position 40, towers over all others for head 0 and lies far below them for head 1.
  for (index_t t = 0; t < shape.tokens(); ++t) {
    qkv(t, shape.query(0)) = 100.0f;
    qkv(t, shape.query(1)) = -100.0f;
    qkv(t, shape.key(0)) = t == 40 ? 500.0f : 0.0f;
  }
  const auto r = compute(shape, qkv, d_out, method::chosen);
  for (index_t t = 0; t < shape.tokens(); ++t)
    for (index_t c = 0; c < shape.head_dim; ++c) {
      if (t >= 40) REQUIRE(r.out.at(t, c) == qkv.at(40, shape.value(0) + c));
      REQUIRE(std::isfinite(r.out.at(t, c)));
      REQUIRE(std::abs(r.out.at(t, shape.head_dim + c)) <= 1.0 + 1e-5);  // within the values' range, up to rounding
      for (index_t part : {shape.query(0), shape.query(1), shape.key(0), shape.value(0)})
        REQUIRE(std::isfinite(r.d_qkv.at(t, part + c)));
    }
}

TEST_CASE("attention: a value that is not a number is passed on", "[ops][attention]") {
  const attention_shape shape{1, 80, 1, 1, 4};
  const index_t column = GENERATE(0, 4, 8);  // in q, k, v
  auto qkv = random_matrix<float>(shape.tokens(), shape.qkv_width(), 13);
  auto d_out = random_matrix<float>(shape.tokens(), shape.out_width(), 14);
  qkv(70, column) = std::numeric_limits<float>::quiet_NaN();
  const auto r = compute(shape, qkv, d_out, method::chosen);
  CHECK(std::isnan(r.out.at(70, 0)));
  CHECK(std::isnan(r.out.at(79, 0)) == (column != 0));
  CHECK(std::isfinite(r.out.at(60, 0)));
}

TEST_CASE("attention: sizes that do not fit are refused", "[ops][attention]") {
  context<cpu> ctx;
  matrix<float> out(6, 8), log_sum_exp(6, 2), qkv(6, 16);
  attention_shape shape{2, 3, 2, 1, 4};
  CHECK_NOTHROW(attention_forward(ctx, out.view(), log_sum_exp.view(), qkv.view(), shape));
  shape.kv_heads = 3;
  CHECK_THROWS_WITH(attention_forward(ctx, out.view(), log_sum_exp.view(), qkv.view(), shape),
                    "attention: expected heads to be a multiple of kv_heads, got heads=2, kv_heads=3");
  shape.kv_heads = 2;
  CHECK_THROWS_WITH(attention_forward(ctx, out.view(), log_sum_exp.view(), qkv.view(), shape),
                    "attention: expected qkv of 6 x 24, got 6 x 16");
  shape.kv_heads = 0;
  CHECK_THROWS_AS(attention_forward(ctx, out.view(), log_sum_exp.view(), qkv.view(), shape), error);
  shape = {2, 3, 2, 1, 4};
  CHECK_THROWS_WITH(attention_backward(ctx, qkv.view(), out.view(), out.view(), qkv.view(), qkv.view(), shape),
                    "attention: expected log_sum_exp of 6 x 2, got 6 x 16");
}

}  // namespace attention_tests
