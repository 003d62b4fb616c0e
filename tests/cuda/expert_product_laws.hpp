// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the products of experts satisfy on any context: the grouped forms are those of a loop over dense products,
// gathered rows give the bits of a copy of those rows, and a product with SwiGLU the bits of the product and the op,
// one after the other, which are held against sums in double too.
//
// Tolerances: products as in product_laws.hpp. hidden is a function of the stored gate_up with 16 roundings in the
// accumulator (an exponential of 8, four operations). d_gate_up is linear in d_hidden, which errs as a product does and
// is stored once; its factor takes 32 roundings.

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <graft/ops/grouped_swiglu.hpp>

#include "product_laws.hpp"

namespace graft::test {

struct expert_case {
  std::vector<std::int32_t> lengths;
  index_t slack;          // rows behind the last group
  index_t tokens, slots;  // the rows of x, and how many slots each has
  index_t width, hidden;  // D, F
  index_t padding = 0;    // row stride minus row length, in all matrices

  index_t groups() const { return static_cast<index_t>(lengths.size()); }
  std::vector<std::int32_t> offsets() const {
    std::vector<std::int32_t> all{0};
    for (const auto length : lengths) all.push_back(all.back() + length);
    return all;
  }
  index_t used() const { return offsets().back(); }
  index_t rows() const { return used() + slack; }
};

inline const std::vector<expert_case>& expert_cases() {
  static const std::vector<expert_case> all = {
      {{5, 0, 130, 1}, 3, 40, 2, 40, 72, 8},                   // aligned, two tiles of rows, a group without rows
      {{7, 3}, 0, 10, 3, 37, 33, 3},                           // lines that start anywhere
      {{0, 0, 4}, 130, 9, 1, 64, 130},                         // mostly no rows, three tiles across
      {{64}, 0, 64, 1, 8, 64},                                 // one group
      {{33, 100}, 1, 50, 2, 200, 72},                          // deep
      {{0}, 5, 4, 2, 16, 24},                                  // nothing at all
      {std::vector<std::int32_t>(140, 1), 2, 90, 2, 24, 72}};  // more groups than threads in a block, two tiles across
  return all;
}

// Rows that are gathered, on the host: of those in use one in six works for no slot. What nobody may read is NaN.
template <class T>
struct gathered_case {
  tensor<T> x, copy;
  std::vector<std::int32_t> slot_of_row;

  explicit gathered_case(const expert_case& c)
      : x(tensor<T>::random(c.tokens, c.width + c.padding, 1)), copy(c.rows(), c.width + c.padding) {
    const random_source draw{2, random_stream::data};
    const T poison = T(std::numeric_limits<float>::quiet_NaN());
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t i = c.width; i < x.columns; ++i) x(t, i) = poison;
    for (index_t r = 0; r < c.rows(); ++r) {
      const bool works = r < c.used() && draw.below(6, 0, static_cast<std::uint64_t>(r)) > 0;
      const auto slots = static_cast<std::uint64_t>(c.tokens * c.slots);
      slot_of_row.push_back(works ? static_cast<std::int32_t>(draw.below(slots, 1, static_cast<std::uint64_t>(r)))
                                  : -1);
      for (index_t i = 0; i < copy.columns; ++i)
        copy(r, i) = i >= c.width || r >= c.used() ? poison : works ? x(slot_of_row.back() / c.slots, i) : T(0.0f);
    }
  }
};

// The same in the memory of a context. gathered(): with a copy only where the backend asks for one.
template <class T, class Ctx>
struct resident_rows {
  using space = typename Ctx::space;
  resident<Ctx, T> x, copy;
  resident<Ctx, std::int32_t> slot_of_row;
  index_t width, slots;

  resident_rows(Ctx& ctx, const expert_case& c, const gathered_case<T>& from)
      : x(ctx, from.x),
        copy(ctx, from.copy),
        slot_of_row(ctx, one_row(from.slot_of_row)),
        width(c.width),
        slots(c.slots) {}
  view<const T, 2, space> copied() const { return copy.matrix().columns(0, width); }
  gathered_rows<T, space> gathered() const {
    gathered_rows<T, space> rows{x.matrix().columns(0, width), slot_of_row.vector(), slots, {}};
    if (!gathers_rows<typename Ctx::backend, T>) rows.copy = copied();
    return rows;
  }
};

template <class View>
auto stacked_view(const View& matrix, index_t count, index_t columns) {
  using E = typename View::element_type;
  view<E, 3, typename View::space> v(matrix.data, count, matrix.extent(0) / count, matrix.extent(1));
  v.extents[2] = columns;
  return v;
}

// nt and tn of gathered rows against those of the copy.
template <class T, class Out, class Ctx>
void check_gathered_products(Ctx& ctx) {
  for (const expert_case& c : expert_cases())
    for (const accumulate mode : {accumulate::no, accumulate::yes}) {
      CAPTURE(c.lengths.size(), c.rows(), c.width, c.hidden, mode == accumulate::yes);
      const gathered_case<T> host(c);
      const resident_rows<T, Ctx> rows(ctx, c, host);
      const resident<Ctx, std::int32_t> offsets(ctx, one_row(c.offsets()));
      const auto weights = tensor<T>::random(c.groups() * c.hidden, c.width + c.padding, 3);
      const auto upstream = tensor<T>::random(c.rows(), c.hidden + c.padding, 4);
      const auto y_before = tensor<Out>::random(c.rows(), c.hidden + c.padding, 5);
      const auto dw_before = tensor<Out>::random(c.groups() * c.hidden, c.width + c.padding, 6);
      const resident<Ctx, T> w(ctx, weights), dy(ctx, upstream);
      const auto run = [&](const auto& operand) {
        const resident<Ctx, Out> y(ctx, y_before), dw(ctx, dw_before);
        grouped_gemm_nt(ctx, y.matrix().columns(0, c.hidden), operand, stacked_view(w.matrix(), c.groups(), c.width),
                        offsets.vector(), mode);
        grouped_gemm_tn(ctx, stacked_view(dw.matrix(), c.groups(), c.width), dy.matrix().columns(0, c.hidden), operand,
                        offsets.vector(), mode);
        return std::pair(y.get(), dw.get());
      };
      const auto got = run(rows.gathered()), want = run(rows.copied());
      CHECK(same_bits(got.first, want.first));
      CHECK(same_bits(got.second, want.second));
    }
}

// The three grouped forms against a loop over the groups of dense products, whose offsets the host knows. Sums are kept
// in the accumulator type, so that each side errs by 2 (n + 2) of its roundings.
template <class T, class Ctx>
void check_grouped_against_dense(Ctx& ctx) {
  using M = accumulator_t<T>;
  for (const expert_case& c : expert_cases()) {
    if (c.groups() > 10) continue;
    CAPTURE(c.lengths.size(), c.rows(), c.width, c.hidden);
    const auto ends = c.offsets();
    const auto x = tensor<T>::random(c.rows(), c.width, 1), dy = tensor<T>::random(c.rows(), c.hidden, 2),
               w = tensor<T>::random(c.groups() * c.hidden, c.width, 3);
    const resident<Ctx, T> x_there(ctx, x), dy_there(ctx, dy), w_there(ctx, w);
    const resident<Ctx, std::int32_t> offsets(ctx, one_row(ends));
    const auto stack = stacked_view(w_there.matrix(), c.groups(), c.width);
    struct sums {
      tensor<M> y, dx, dw;
    };
    const auto run = [&](const auto& products) {
      const resident<Ctx, M> y(ctx, tensor<M>(c.rows(), c.hidden)), dx(ctx, tensor<M>(c.rows(), c.width)),
          dw(ctx, tensor<M>(w.rows, c.width));
      products(y.matrix(), dx.matrix(), stacked_view(dw.matrix(), c.groups(), c.width));
      return sums{y.get(), dx.get(), dw.get()};
    };
    const auto grouped = run([&](const auto& y, const auto& dx, const auto& dw) {
      grouped_gemm_nt(ctx, y, x_there.matrix(), stack, offsets.vector());
      grouped_gemm_nn(ctx, dx, dy_there.matrix(), stack, offsets.vector());
      grouped_gemm_tn(ctx, dw, dy_there.matrix(), x_there.matrix(), offsets.vector());
    });
    const auto looped = run([&](const auto& y, const auto& dx, const auto& dw) {
      for (index_t e = 0; e < c.groups(); ++e) {
        const index_t begin = ends[static_cast<std::size_t>(e)], end = ends[static_cast<std::size_t>(e) + 1];
        const auto x_e = x_there.matrix().rows(begin, end), dy_e = dy_there.matrix().rows(begin, end);
        gemm_nt(ctx, y.rows(begin, end), x_e, stack[e]);
        gemm_nn(ctx, dx.rows(begin, end), dy_e, stack[e]);
        gemm_tn(ctx, dw[e], dy_e, x_e);
      }
    });
    const auto compare = [&](form f, const tensor<M>& got, const tensor<M>& want, const tensor<T>& left,
                             const tensor<T>& right) {
      const bool tn = f == form::tn, nt = f == form::nt;
      tensor<double> value(got.rows, got.columns), size(got.rows, got.columns);
      index_t longest = nt ? c.width : c.hidden;
      for (index_t e = 0; e < c.groups(); ++e) {
        const index_t begin = ends[static_cast<std::size_t>(e)], length = c.lengths[static_cast<std::size_t>(e)];
        reference_product(f, left, right, tn ? 0 : e * c.hidden, value, size, tn ? e * c.hidden : begin,
                          tn ? c.hidden : length, got.columns, tn ? begin : 0, tn ? length : longest);
      }
      if (tn) longest = c.used();
      CHECK(mismatch(got, want.wide(), [&](index_t r, index_t i) {
              return bound<M>(0, 4.0 * static_cast<double>(longest + 2), size.at(r, i));
            }) == "");
    };
    compare(form::nt, grouped.y, looped.y, x, w);
    compare(form::nn, grouped.dx, looped.dx, dy, w);
    compare(form::tn, grouped.dw, looped.dw, dy, x);
  }
}

template <class T>
struct swiglu_results {
  tensor<T> first, second;  // gate_up and hidden, or d_gate_up alone
};

template <class T, class Ctx>
void check_swiglu_forward(Ctx& ctx, const expert_case& c) {
  const gathered_case<T> host(c);
  const resident_rows<T, Ctx> rows(ctx, c, host);
  const resident<Ctx, std::int32_t> offsets(ctx, one_row(c.offsets()));
  const index_t half = c.hidden, both = 2 * half;
  const auto weights = tensor<T>::random(c.groups() * both, c.width + c.padding, 3, 0.5);
  const auto gate_up_before = tensor<T>::random(c.rows(), both + c.padding, 5),
             hidden_before = tensor<T>::random(c.rows(), half + c.padding, 6);
  const resident<Ctx, T> w(ctx, weights);
  const auto w13 = stacked_view(w.matrix(), c.groups(), c.width);
  const auto run = [&](const auto& work) {
    const resident<Ctx, T> gate_up(ctx, gate_up_before), hidden(ctx, hidden_before);
    work(gate_up.matrix().columns(0, both), hidden.matrix().columns(0, half));
    return swiglu_results<T>{gate_up.get(), hidden.get()};
  };
  const auto composed = run([&](const auto& gate_up, const auto& hidden) {
    grouped_gemm_nt(ctx, gate_up, rows.copied(), w13, offsets.vector(), accumulate::no);
    swiglu_forward(ctx, hidden, gate_up, offsets.vector().data + c.groups());
  });
  const auto fused = run([&](const auto& gate_up, const auto& hidden) {
    grouped_swiglu_forward(ctx, gate_up, hidden, rows.copied(), w13, offsets.vector());
  });
  const auto gathered = run([&](const auto& gate_up, const auto& hidden) {
    grouped_swiglu_forward(ctx, gate_up, hidden, rows.gathered(), w13, offsets.vector());
  });
  for (const auto* got : {&fused, &gathered}) {
    CHECK(same_bits(got->first, composed.first));
    CHECK(same_bits(got->second, composed.second));
  }

  const auto ends = c.offsets();
  tensor<double> sums(c.rows(), both), size(c.rows(), both), want(c.rows(), half), magnitude(c.rows(), half);
  for (index_t e = 0; e < c.groups(); ++e)
    reference_product(form::nt, host.copy, weights, e * both, sums, size, ends[static_cast<std::size_t>(e)],
                      c.lengths[static_cast<std::size_t>(e)], both, 0, c.width);
  const auto used = [&](index_t row) { return row < c.used(); };
  CHECK(compare_product(fused.first, gate_up_before, sums, size, both, 2.0 * static_cast<double>(c.width + 2), used) ==
        "");
  for (index_t r = 0; r < c.used(); ++r)
    for (index_t i = 0; i < half; ++i) {
      const double gate = fused.first.at(r, i), up = fused.first.at(r, half + i);
      want(r, i) = gate / (1 + std::exp(-gate)) * up;
      magnitude(r, i) = std::abs(want(r, i));
    }
  CHECK(compare_product(fused.second, hidden_before, want, magnitude, half, 16, used) == "");
}

template <class T, class Ctx>
void check_swiglu_backward(Ctx& ctx, const expert_case& c) {
  const resident<Ctx, std::int32_t> offsets(ctx, one_row(c.offsets()));
  const index_t half = c.hidden, both = 2 * half;
  auto upstream = tensor<T>::random(c.rows(), c.width + c.padding, 1);
  const T poison = T(std::numeric_limits<float>::quiet_NaN());
  for (index_t r = c.used(); r < c.rows(); ++r)
    for (index_t i = 0; i < upstream.columns; ++i) upstream(r, i) = poison;
  const auto weights = tensor<T>::random(c.groups() * c.width, half + c.padding, 2, 0.5);
  const auto gate_up = tensor<T>::random(c.rows(), both + c.padding, 3, 2);
  const auto before = tensor<T>::random(c.rows(), both + c.padding, 4),
             work_before = tensor<T>::random(c.rows(), half + c.padding, 5);
  const resident<Ctx, T> d_results(ctx, upstream), w(ctx, weights), saved(ctx, gate_up);
  const view<const T, 2, typename Ctx::space> d_y = d_results.matrix().columns(0, c.width),
                                              forward = saved.matrix().columns(0, both);
  const auto w2 = stacked_view(w.matrix(), c.groups(), half);
  const auto run = [&](const tensor<T>& start, const auto& work) {
    const resident<Ctx, T> d_gate_up(ctx, start), d_hidden(ctx, work_before);
    work(d_gate_up.matrix().columns(0, both), d_hidden.matrix().columns(0, half));
    return swiglu_results<T>{d_gate_up.get(), d_hidden.get()};
  };
  const auto composed = run(before, [&](const auto& d_gate_up, const auto& d_hidden) {
    grouped_gemm_nn(ctx, d_hidden, d_y, w2, offsets.vector(), accumulate::no);
    swiglu_backward(ctx, d_gate_up, d_hidden, forward, offsets.vector().data + c.groups());
  });
  const auto apart = run(before, [&](const auto& d_gate_up, const auto& d_hidden) {
    grouped_swiglu_backward(ctx, d_gate_up, d_hidden, d_y, w2, forward, offsets.vector());
  });
  const auto in_place = run(gate_up, [&](const auto& d_gate_up, const auto& d_hidden) {
    grouped_swiglu_backward(ctx, d_gate_up, d_hidden, d_y, w2, d_gate_up, offsets.vector());
  });
  CHECK(same_bits(apart.first, composed.first));

  const auto ends = c.offsets();
  tensor<double> d(c.rows(), half), size(c.rows(), half);
  for (index_t e = 0; e < c.groups(); ++e)
    reference_product(form::nn, upstream, weights, e * c.width, d, size, ends[static_cast<std::size_t>(e)],
                      c.lengths[static_cast<std::size_t>(e)], half, 0, c.width);
  tensor<T> used(c.used(), both);
  tensor<double> want(c.used(), both), allowed(c.used(), both);
  bool same_in_place = true, untouched = true;
  for (index_t r = 0; r < c.rows(); ++r)
    for (index_t i = 0; i < both + c.padding; ++i) {
      const auto at = static_cast<std::size_t>(r * (both + c.padding) + i);
      const auto differ = [&](const T& a, const T& b) { return std::memcmp(&a, &b, sizeof(T)) != 0; };
      if (r >= c.used() || i >= both) {
        untouched = untouched && !differ(apart.first.values[at], before.values[at]) &&
                    !differ(in_place.first.values[at], gate_up.values[at]);
        continue;
      }
      same_in_place = same_in_place && !differ(in_place.first.values[at], apart.first.values[at]);
      const double gate = gate_up.at(r, i % half), up = gate_up.at(r, half + i % half);
      const double s = 1 / (1 + std::exp(-gate));
      const double factor = i < half ? up * s * (1 + gate * (1 - s)) : gate * s;
      const double factor_size = i < half ? std::abs(up * s) * (1 + std::abs(gate)) : std::abs(gate * s);
      const double d_error = bound<T>(d.at(r, i % half), 2.0 * static_cast<double>(c.width + 2), size.at(r, i % half));
      used(r, i) = apart.first.values[at];
      want(r, i) = d.at(r, i % half) * factor;
      allowed(r, i) = bound<T>(want.at(r, i), 32, (std::abs(d.at(r, i % half)) + d_error) * factor_size) +
                      d_error * std::abs(factor) * (1 + unit_roundoff<T>);
    }
  CHECK(same_in_place);
  CHECK(untouched);
  CHECK(mismatch(used, want, [&](index_t r, index_t i) { return allowed.at(r, i); }) == "");
}

template <class T, class Ctx>
void check_swiglu_products(Ctx& ctx) {
  for (const expert_case& c : expert_cases()) {
    CAPTURE(c.lengths.size(), c.rows(), c.width, c.hidden);
    check_swiglu_forward<T>(ctx, c);
    check_swiglu_backward<T>(ctx, c);
  }
}

}  // namespace graft::test
