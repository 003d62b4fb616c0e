// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <cmath>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/ops/head_norm.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace head_norm_tests {

using namespace graft;
using namespace graft::test;

namespace {

constexpr double eps = 1e-6;

template <class T>
struct head_case {
  using M = accumulator_t<T>;
  index_t heads, kv_heads, head_dim;
  tensor<T> raw, d_out, q_weight, k_weight;
  tensor<M> d_q_before, d_k_before;

  head_case(index_t tokens, index_t h, index_t g, index_t d)
      : heads(h),
        kv_heads(g),
        head_dim(d),
        raw(tensor<T>::random(tokens, (h + 2 * g) * d, 1)),
        d_out(tensor<T>::random(tokens, (h + 2 * g) * d, 2)),
        q_weight(tensor<T>::random(1, d, 3)),
        k_weight(tensor<T>::random(1, d, 4)),
        d_q_before(tensor<M>::random(1, d, 5)),
        d_k_before(tensor<M>::random(1, d, 6)) {}
};

template <class T>
struct head_result {
  using M = accumulator_t<T>;
  tensor<T> out, d_qkv;
  tensor<M> inverse_rms, d_q, d_k;
  bool operator==(const head_result& other) const {
    return same_bits(out, other.out) && same_bits(d_qkv, other.d_qkv) && same_bits(inverse_rms, other.inverse_rms) &&
           same_bits(d_q, other.d_q) && same_bits(d_k, other.d_k);
  }
};

template <class T, class Context>
head_result<T> run(Context& ctx, const head_case<T>& c) {
  head_result<T> r;
  r.out = tensor<T>(c.raw.rows, c.raw.columns, 9);
  r.inverse_rms = tensor<accumulator_t<T>>(c.raw.rows, c.heads + c.kv_heads);
  r.d_qkv = c.d_out;
  r.d_q = c.d_q_before;
  r.d_k = c.d_k_before;
  head_norm_forward(ctx, r.out.matrix(), r.inverse_rms.matrix(), c.raw.matrix(), c.q_weight.vector(),
                    c.k_weight.vector(), c.heads, eps);
  head_norm_backward(ctx, r.d_qkv.matrix(), r.d_q.vector(), r.d_k.vector(), c.raw.matrix(), r.inverse_rms.matrix(),
                     c.q_weight.vector(), c.k_weight.vector(), c.heads);
  return r;
}

template <class T>
void check_values(const head_case<T>& c, const head_result<T>& r) {
  using M = accumulator_t<T>;
  const index_t tokens = c.raw.rows, d = c.head_dim;
  const auto n = static_cast<double>(d);
  tensor<double> out = c.raw.wide(), d_raw = c.d_out.wide(), magnitude(tokens, c.raw.columns),
                 scales(tokens, c.heads + c.kv_heads);
  tensor<double> d_weight[2] = {c.d_q_before.wide(), c.d_k_before.wide()},
                 d_weight_magnitude[2] = {tensor<double>(1, d), tensor<double>(1, d)};
  for (int kind = 0; kind < 2; ++kind)
    for (index_t i = 0; i < d; ++i) d_weight_magnitude[kind](0, i) = std::abs(d_weight[kind].at(0, i));
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t head = 0; head < c.heads + c.kv_heads; ++head) {
      const int kind = head < c.heads ? 0 : 1;
      const tensor<T>& weight = kind == 0 ? c.q_weight : c.k_weight;
      double square = 0, dot = 0, dot_magnitude = 0;
      for (index_t i = 0; i < d; ++i) {
        const double x = c.raw.at(t, head * d + i), term = c.d_out.at(t, head * d + i) * weight.at(0, i) * x;
        square += x * x / n, dot += term / n, dot_magnitude += std::abs(term) / n;
      }
      const double s = scales(t, head) = 1 / std::sqrt(square + eps);
      for (index_t i = 0; i < d; ++i) {
        const index_t at = head * d + i;
        const double x = c.raw.at(t, at), g = c.d_out.at(t, at), w = weight.at(0, i);
        out(t, at) = x * s * w;
        d_raw(t, at) = s * (g * w - x * s * s * dot);
        magnitude(t, at) = s * (std::abs(g * w) + std::abs(x) * s * s * dot_magnitude);
        d_weight[kind](0, i) += g * x * s;
        d_weight_magnitude[kind](0, i) += std::abs(g * x * s);
      }
    }
  }
  // As for rms_norm with the head as the row; values pass through unchanged, which a tolerance of 0 would say.
  const auto unchanged = [&](index_t at) { return at >= (c.heads + c.kv_heads) * d; };
  CHECK(mismatch(r.out, out, [&](index_t t, index_t at) {
          return unchanged(at) ? 0x1p-1000 : bound<T>(out.at(t, at), n / 2 + 6, std::abs(out.at(t, at)));
        }) == "");
  CHECK(mismatch(r.inverse_rms, scales,
                 [&](index_t t, index_t h) { return bound<M>(scales.at(t, h), n / 2 + 4, scales.at(t, h)); }) == "");
  CHECK(mismatch(r.d_qkv, d_raw, [&](index_t t, index_t at) {
          return unchanged(at) ? 0x1p-1000 : bound<T>(d_raw.at(t, at), 2.5 * n + 20, magnitude.at(t, at));
        }) == "");
  for (int kind = 0; kind < 2; ++kind) {
    const double terms = static_cast<double>(tokens * (kind == 0 ? c.heads : c.kv_heads));
    CHECK(mismatch(kind == 0 ? r.d_q : r.d_k, d_weight[kind], [&](index_t, index_t i) {
            return bound<M>(d_weight[kind].at(0, i), n / 2 + 8 + terms, d_weight_magnitude[kind].at(0, i));
          }) == "");
  }
}

}  // namespace

TEMPLATE_TEST_CASE("head_norm: values forward and backward", "[ops]", double, float, bfloat16) {
  context<cpu> ctx(context_options{1});
  shuffled_context shuffled(8);
  const index_t tokens = GENERATE(1, 64, 67);
  const index_t kv_heads = GENERATE(1, 2), head_dim = GENERATE(2, 18);
  CAPTURE(tokens, kv_heads, head_dim);
  const head_case<TestType> c(tokens, 4, kv_heads, head_dim);
  check_values(c, run(ctx, c));
  check_values(c, run(shuffled, c));
}

TEMPLATE_TEST_CASE("head_norm: the same bits on one thread and on two", "[ops][slow]", double, float, bfloat16) {
  context<cpu> one(context_options{1}), two(context_options{2});
  const head_case<TestType> c(64 * 65 + 1, 2, 1, 256);  // enough chunks of rows for two threads backward too
  CHECK(run(one, c) == run(two, c));
}

TEST_CASE("head_norm: frozen weights get no gradient, the rest stays the same", "[ops]") {
  context<cpu> ctx(context_options{1});
  const head_case<float> c(70, 4, 2, 8);
  const head_result<float> all = run(ctx, c);
  tensor<float> d_qkv = c.d_out, d_k = c.d_k_before;
  head_norm_backward(ctx, d_qkv.matrix(), {}, d_k.vector(), c.raw.matrix(), all.inverse_rms.matrix(),
                     c.q_weight.vector(), c.k_weight.vector(), c.heads);
  CHECK(same_bits(d_qkv, all.d_qkv));
  CHECK(same_bits(d_k, all.d_k));
  d_qkv = c.d_out;
  tensor<float> d_q = c.d_q_before;
  head_norm_backward(ctx, d_qkv.matrix(), d_q.vector(), {}, c.raw.matrix(), all.inverse_rms.matrix(),
                     c.q_weight.vector(), c.k_weight.vector(), c.heads);
  CHECK(same_bits(d_qkv, all.d_qkv));
  CHECK(same_bits(d_q, all.d_q));
}

TEST_CASE("head_norm: gradient by central differences", "[ops]") {
  context<cpu> ctx(context_options{1});
  head_case<double> c(5, 2, 1, 4);
  c.d_q_before = c.d_k_before = tensor<double>(1, 4);
  const head_result<double> r = run(ctx, c);
  const auto f = [&] {
    const head_result<double> now = run(ctx, c);
    double sum = 0;
    for (std::size_t i = 0; i < now.out.values.size(); ++i) sum += c.d_out.values[i] * now.out.values[i];
    return sum;
  };
  CHECK(gradient_mismatch(f, c.raw.values, r.d_qkv.values) == "");
  CHECK(gradient_mismatch(f, c.q_weight.values, r.d_q.values) == "");
  CHECK(gradient_mismatch(f, c.k_weight.values, r.d_k.values) == "");
}

}  // namespace head_norm_tests
