// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What attention is, for every backend, element type S and method: the definition, in fp64, with a bound of every
// element's rounding error; no look ahead; the same bits twice; nothing written but the results. Written once, run on
// context<cpu> by tests/ops/attention_laws.cpp and on context<cuda> by tests/cuda/attention.cu.
//
// Bounds. e is the unit roundoff of S's accumulator, u what p and ds lose when they are rounded to S before they meet
// the vectors (0 where S is its own accumulator). First-order, every sum with 2 e a term, since the order of sums is
// the method's own and tensor cores may cut instead of round:
//   s_tj = <q_t, k_j> / sqrt(d)      off by 2 (d + 4) e a_tj,            a: the same of absolute values
//   p_tj                             off by the factor w_t = 4 (d + 8) e max_j a_tj + 16 e   (two scores, e^x, factors)
//   out                              sum of p |v| times (u + 2 w + 2 n e), n keys
//   lse                              w + 2 (n + 4) e (1 + |lse|)
//   p from lse                       off by the factor w'_t = 4 (d + 8) e max_j a_tj + 4 e |lse_t| + 16 e
//   ds                               p (w' + u) |dp - delta| + p 2 (d + 4) e (<|dO|, |v|> + <|dO|, |O|>), over sqrt(d)
// and a gradient sums these, times the other factor's absolute value, with 2 n e more of the sum of absolute terms.
// Stored results add the unit roundoff of S.

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include <graft/ops/attention.hpp>

#include "catch.hpp"
#include "resident.hpp"

namespace graft::test {

inline std::string describe(const attention_shape& s) {
  return "B=" + std::to_string(s.sequences) + " S=" + std::to_string(s.positions) + " H=" + std::to_string(s.heads) +
         " G=" + std::to_string(s.kv_heads) + " d=" + std::to_string(s.head_dim);
}

// Inputs and results of one run, on the host. Rows are `gap` elements further apart than they are wide.
template <class S>
struct attention_run {
  using M = accumulator_t<S>;
  tensor<S> qkv, d_out;  // inputs
  tensor<S> out, d_qkv;
  tensor<M> log_sum_exp;
};

template <class S>
attention_run<S> attention_inputs(const attention_shape& shape, std::uint64_t seed) {
  attention_run<S> run;
  run.qkv = tensor<S>::random(shape.tokens(), shape.qkv_width(), seed);
  run.d_out = tensor<S>::random(shape.tokens(), shape.out_width(), seed + 1);
  return run;
}

// A tensor whose rows are further apart than they are wide, in the memory of the context.
template <class Ctx, class T>
class spaced {
 public:
  static constexpr double between = -7;

  spaced(Ctx& ctx, const tensor<T>& values, index_t gap) : width_(values.columns), memory_(ctx, widened(values, gap)) {}
  spaced(Ctx& ctx, index_t rows, index_t columns, index_t gap) : spaced(ctx, tensor<T>(rows, columns, between), gap) {}

  auto matrix() const { return memory_.matrix().columns(0, width_); }
  // The values, if nothing was written between the rows.
  tensor<T> get() const {
    const tensor<T> all = memory_.get();
    tensor<T> result(all.rows, width_);
    bool untouched = true;
    for (index_t r = 0; r < all.rows; ++r)
      for (index_t c = 0; c < all.columns; ++c) {
        const T value = all.values[static_cast<std::size_t>(r * all.columns + c)];
        if (c < width_) {
          result(r, c) = value;
        } else {
          untouched = untouched && widen(value) == between;
        }
      }
    CHECK(untouched);
    return result;
  }

 private:
  static tensor<T> widened(const tensor<T>& values, index_t gap) {
    tensor<T> result(values.rows, values.columns + gap, between);
    for (index_t r = 0; r < values.rows; ++r)
      for (index_t c = 0; c < values.columns; ++c)
        result(r, c) = values.values[static_cast<std::size_t>(r * values.columns + c)];
    return result;
  }
  index_t width_;
  resident<Ctx, T> memory_;
};

// Forward and backward of the inputs in `run`.
template <class S, class Ctx>
attention_run<S> attention_of(Ctx& ctx, const attention_shape& shape, attention_run<S> run, index_t gap = 8) {
  using M = accumulator_t<S>;
  const spaced<Ctx, S> qkv(ctx, run.qkv, gap), d_out(ctx, run.d_out, gap),
      out(ctx, shape.tokens(), shape.out_width(), gap), d_qkv(ctx, shape.tokens(), shape.qkv_width(), gap);
  const spaced<Ctx, M> log_sum_exp(ctx, shape.tokens(), shape.heads, gap);
  attention_forward(ctx, out.matrix(), log_sum_exp.matrix(), qkv.matrix(), shape);
  attention_backward(ctx, d_qkv.matrix(), d_out.matrix(), out.matrix(), log_sum_exp.matrix(), qkv.matrix(), shape);
  run.out = out.get();
  run.d_qkv = d_qkv.get();
  run.log_sum_exp = log_sum_exp.get();
  return run;
}

template <class S>
bool same_results(const attention_run<S>& a, const attention_run<S>& b) {
  return same_bits(a.out, b.out) && same_bits(a.log_sum_exp, b.log_sum_exp) && same_bits(a.d_qkv, b.d_qkv);
}

// A reference and the bound of every element's error.
struct bounded {
  tensor<double> want, bound;
  bounded(index_t rows, index_t columns) : want(rows, columns), bound(rows, columns) {}
};

template <class T>
std::string mismatch(const tensor<T>& got, const bounded& reference) {
  return mismatch(got, reference.want, [&](index_t r, index_t c) {
    return reference.bound.at(r, c) + 1.0001 * unit_roundoff<T> * std::abs(reference.want.at(r, c)) + 0x1p-120;
  });
}

// Whose kernels run. Those of a library may be others for another length, and round what each head of a group adds to
// the gradient of its key and value.
enum class attention_kernels { ours, of_a_library };

// Compares a run with the definition. The backward pass is compared as what it is: a function of qkv, d_out and the
// stored out and log_sum_exp.
template <class S>
void check_definition(const attention_shape& s, const attention_run<S>& run,
                      attention_kernels kernels = attention_kernels::ours) {
  const double e = unit_roundoff<accumulator_t<S>>;
  const double u = std::is_same_v<S, accumulator_t<S>> ? 0 : unit_roundoff<S>;
  const double of_head = kernels == attention_kernels::of_a_library && s.group() > 1 ? u : 0;
  const index_t d = s.head_dim;
  const double root = std::sqrt(static_cast<double>(d)), width = static_cast<double>(d);
  const tensor<double> qkv = run.qkv.wide(), d_out = run.d_out.wide(), stored_out = run.out.wide();
  bounded out(s.tokens(), s.out_width()), log_sum_exp(s.tokens(), s.heads), d_qkv(s.tokens(), s.qkv_width());

  for (index_t t = 0; t < s.tokens(); ++t)
    for (index_t h = 0; h < s.heads; ++h) {
      const index_t first = t - t % s.positions, n = t - first + 1;
      const index_t query = s.query(h), key = s.key(h / s.group()), value = s.value(h / s.group());
      std::vector<double> score(static_cast<std::size_t>(n));
      double largest = -1e300, magnitude = 0, total = 0, delta = 0, deltas = 0;
      for (index_t j = 0; j < n; ++j) {
        double sum = 0, absolute = 0;
        for (index_t c = 0; c < d; ++c) {
          const double term = qkv.at(t, query + c) * qkv.at(first + j, key + c);
          sum += term;
          absolute += std::abs(term);
        }
        score[static_cast<std::size_t>(j)] = sum / root;
        largest = std::max(largest, sum / root);
        magnitude = std::max(magnitude, absolute / root);
      }
      for (index_t j = 0; j < n; ++j) total += std::exp(score[static_cast<std::size_t>(j)] - largest);
      const double log_sum = largest + std::log(total), w = 4 * (width + 8) * e * magnitude + 16 * e;
      const double sum_error = 2 * static_cast<double>(n) * e;
      log_sum_exp.want(t, h) = log_sum;
      log_sum_exp.bound(t, h) = w + (sum_error + 8 * e) * (1 + std::abs(log_sum));
      for (index_t c = 0; c < d; ++c) {
        double sum = 0, absolute = 0;
        for (index_t j = 0; j < n; ++j) {
          const double term = std::exp(score[static_cast<std::size_t>(j)] - log_sum) * qkv.at(first + j, value + c);
          sum += term;
          absolute += std::abs(term);
        }
        out.want(t, h * d + c) = sum;
        out.bound(t, h * d + c) = absolute * (u + 2 * w + sum_error);
        delta += d_out.at(t, h * d + c) * stored_out.at(t, h * d + c);
        deltas += std::abs(d_out.at(t, h * d + c) * stored_out.at(t, h * d + c));
      }

      const double stored = run.log_sum_exp.at(t, h);
      const double weight_error = 4 * (width + 8) * e * magnitude + 4 * e * std::abs(stored) + 16 * e;
      // What the longest sum of a gradient adds, for any of the three: all queries of a group.
      const double long_sum = 2 * static_cast<double>(std::max(n, (s.positions - t % s.positions) * s.group()) + 4) * e;
      for (index_t j = 0; j < n; ++j) {
        const double p = std::exp(score[static_cast<std::size_t>(j)] - stored);
        double dp = 0, dps = 0;
        for (index_t c = 0; c < d; ++c) {
          const double term = d_out.at(t, h * d + c) * qkv.at(first + j, value + c);
          dp += term;
          dps += std::abs(term);
        }
        const double ds = p * (dp - delta) / root;
        const double ds_error =
            std::abs(ds) * (weight_error + u + 2 * long_sum) + p * 2 * (width + 4) * e * (dps + deltas) / root;
        for (index_t c = 0; c < d; ++c) {
          d_qkv.want(t, query + c) += ds * qkv.at(first + j, key + c);
          d_qkv.bound(t, query + c) += ds_error * std::abs(qkv.at(first + j, key + c));
          d_qkv.want(first + j, key + c) += ds * qkv.at(t, query + c);
          d_qkv.bound(first + j, key + c) += (ds_error + of_head * std::abs(ds)) * std::abs(qkv.at(t, query + c));
          const double term = p * d_out.at(t, h * d + c);
          d_qkv.want(first + j, value + c) += term;
          d_qkv.bound(first + j, value + c) +=
              std::abs(term) * (weight_error + u + of_head + 2 * static_cast<double>(s.positions * s.group() + 4) * e);
        }
      }
    }
  CHECK(mismatch(run.out, out) == "");
  CHECK(mismatch(run.log_sum_exp, log_sum_exp) == "");
  CHECK(mismatch(run.d_qkv, d_qkv) == "");
}

// One token; a tile of queries and of keys, one more and one less; groups of 1, 2 and 4; several sequences; each
// head_dim that has kernels of its own, and one that has none. The first four are enough for row algorithms.
inline const attention_shape attention_shapes[] = {{2, 1, 2, 1, 64},    {2, 37, 4, 2, 32},  {2, 33, 4, 1, 24},
                                                   {1, 65, 2, 2, 16},   {1, 64, 4, 1, 64},  {1, 129, 2, 2, 64},
                                                   {3, 65, 2, 2, 96},   {1, 150, 2, 1, 96}, {2, 33, 4, 1, 128},
                                                   {1, 128, 2, 1, 128}, {1, 161, 1, 1, 32}, {2, 70, 3, 1, 48}};

template <class S, class Ctx>
void check_attention_definition(Ctx& ctx, std::size_t shapes = std::size(attention_shapes),
                                attention_kernels kernels = attention_kernels::ours) {
  for (std::size_t i = 0; i < shapes; ++i) {
    const attention_shape& shape = attention_shapes[i];
    INFO(describe(shape));
    const auto inputs = attention_inputs<S>(shape, 11);
    const auto run = attention_of(ctx, shape, inputs);
    check_definition(shape, run, kernels);
    CHECK(same_results(run, attention_of(ctx, shape, inputs)));
  }
}

// What stands between rows decides how memory may be read, not what comes out.
template <class S, class Ctx>
void check_attention_strides(Ctx& ctx, attention_kernels kernels = attention_kernels::ours) {
  const attention_shape shape{1, 35, 2, 1, 64};
  for (const index_t gap : {0, 3, 8}) {
    INFO("gap " << gap);
    check_definition(shape, attention_of(ctx, shape, attention_inputs<S>(shape, 21), gap), kernels);
  }
}

// Changing the token at `changed` leaves what comes before it as it is, bit for bit, and other sequences too; tokens
// that no loss reads get no gradient; and with our kernels a sequence cut short gives the beginning of what the whole
// gives.
template <class S, class Ctx>
void check_attention_looks_back(Ctx& ctx, const attention_shape& shape = {2, 140, 2, 1, 64},
                                attention_kernels kernels = attention_kernels::ours) {
  for (const index_t changed : {1, 63, 64, 130}) {
    INFO("position " << changed);
    auto inputs = attention_inputs<S>(shape, 31);
    for (index_t t = changed; t < shape.positions; ++t)
      for (index_t c = 0; c < shape.out_width(); ++c) inputs.d_out(t, c) = narrow<S>(0);
    const auto before = attention_of(ctx, shape, inputs);
    for (index_t c = 0; c < shape.qkv_width(); ++c)
      inputs.qkv(changed, c) = narrow<S>(3 * inputs.qkv.at(changed, c) + 1);
    const auto after = attention_of(ctx, shape, inputs);
    index_t moved = 0, seen = 0, leaked = 0;
    for (index_t t = 0; t < shape.tokens(); ++t)
      for (index_t c = 0; c < shape.out_width(); ++c) {
        const bool differs = before.out.at(t, c) != after.out.at(t, c);
        (t < changed || t >= shape.positions ? moved : seen) += differs;
      }
    for (index_t t = changed; t < shape.positions; ++t)
      for (index_t c = 0; c < shape.qkv_width(); ++c) leaked += after.d_qkv.at(t, c) != 0;
    CHECK(moved == 0);
    CHECK(seen > 0);
    CHECK(leaked == 0);
    if (kernels != attention_kernels::ours) continue;

    attention_run<S> cut;
    const attention_shape shorter{1, changed, shape.heads, shape.kv_heads, shape.head_dim};
    const auto take = [&](const tensor<S>& whole) {
      tensor<S> result(changed, whole.columns);
      std::copy_n(whole.values.begin(), result.values.size(), result.values.begin());
      return result;
    };
    cut.qkv = take(inputs.qkv);
    cut.d_out = take(inputs.d_out);
    cut = attention_of(ctx, shorter, cut);
    CHECK(same_bits(cut.out, take(after.out)));
    CHECK(same_bits(cut.d_qkv, take(after.d_qkv)));
  }
}

// One key towers over all others for head 0 and lies far below them for head 1.
template <class S, class Ctx>
void check_attention_extremes(Ctx& ctx) {
  const attention_shape shape{1, 100, 2, 1, 32};
  auto inputs = attention_inputs<S>(shape, 41);
  for (index_t t = 0; t < shape.tokens(); ++t) {
    inputs.qkv(t, shape.query(0)) = narrow<S>(128);
    inputs.qkv(t, shape.query(1)) = narrow<S>(-128);
    inputs.qkv(t, shape.key(0)) = narrow<S>(t == 40 ? 512 : 0);
  }
  const auto run = attention_of(ctx, shape, inputs);
  index_t other = 0, present = 0, infinite = 0;
  for (index_t t = 40; t < shape.tokens(); ++t)
    for (index_t c = 0; c < shape.head_dim; ++c) {
      const double tower = inputs.qkv.at(40, shape.value(0) + c);
      other += run.out.at(t, c) != tower;
      present += run.out.at(t, shape.head_dim + c) == tower;
    }
  for (index_t t = 0; t < shape.tokens(); ++t) {
    for (index_t c = 0; c < shape.out_width(); ++c) infinite += !std::isfinite(run.out.at(t, c));
    for (index_t c = 0; c < shape.qkv_width(); ++c) infinite += !std::isfinite(run.d_qkv.at(t, c));
  }
  CHECK(other == 0);
  CHECK(present < 4);  // equal by chance
  CHECK(infinite == 0);
}

template <class S, class Ctx>
void check_attention(Ctx& ctx, attention_kernels kernels = attention_kernels::ours) {
  check_attention_definition<S>(ctx, std::size(attention_shapes), kernels);
  check_attention_strides<S>(ctx, kernels);
  check_attention_looks_back<S>(ctx, {2, 140, 2, 1, 64}, kernels);
  check_attention_extremes<S>(ctx);
}

}  // namespace graft::test
