// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every backend's row launcher and groups satisfy, written on the context: one algorithm that uses all of a
// group's words, over widths around every border (lanes, warp, block) and more rows than a grid has groups.

#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <utility>

#include <graft/backend/backend.hpp>
#include <graft/backend/rows.hpp>

#include "catch.hpp"
#include "resident.hpp"

namespace graft::test {

// What the probe leaves for a row.
enum probe_column {
  probe_sum,
  probe_max,
  probe_argmax,
  probe_argmax_value,
  probe_count,
  probe_single,
  probe_neighbours,
  probe_columns
};

// Writes x twice over (doubled), reads back a neighbour's element after a sync, and reduces in every way.
template <class Space>
struct probe_row {
  matrix_view<const float, Space> x;  // (rows, width)
  matrix_view<float, Space> doubled;  // (rows, width)
  matrix_view<double, Space> result;  // (rows, probe_columns)

  template <class G>
  GRAFT_HOST_DEVICE void operator()(G& group, index_t row) const {
    const index_t width = x.extent(1);
    const float* from = x.row(row);
    float* to = doubled.row(row);
    double* out = result.row(row);
    group.for_each(width, [=](index_t i) { to[i] = 2 * from[i]; });
    group.sync();
    const float neighbours = group.max(width, [=](index_t i) { return to[(i + 37) % width]; });
    // NaN, where there is one, is passed over by max and argmax, and kept out of the sums here.
    const float sum = group.sum(width, [=](index_t i) { return from[i] == from[i] ? from[i] : 0.0f; });
    const float top = group.max(width, [=](index_t i) { return from[i]; });
    const auto best = group.argmax(width, [=](index_t i) { return from[i]; });
    const std::int64_t count = group.reduce(
        width, [=](index_t i) { return from[i] > 0 ? std::int64_t{1} : std::int64_t{0}; },
        [](std::int64_t a, std::int64_t b) { return a + b; }, std::int64_t{0});
    group.single([=] {
      out[probe_sum] = static_cast<double>(sum);
      out[probe_max] = static_cast<double>(top);
      out[probe_argmax] = static_cast<double>(best.index);
      out[probe_argmax_value] = static_cast<double>(best.value);
      out[probe_count] = static_cast<double>(count);
      out[probe_single] += 1;
      out[probe_neighbours] = static_cast<double>(neighbours);
    });
  }
};

template <class Ctx>
void check_rows(Ctx& ctx, index_t rows, index_t width) {
  INFO("rows " << rows << ", width " << width);
  auto x = tensor<float>::random(rows, width, 11);
  for (index_t r = 0; r < rows && width > 0; ++r) {
    if (r % 5 == 1) x(r, width / 2) = x(r, width - 1) = 100;  // a tie, which the lower index wins
    if (r % 5 == 2) x(r, 0) = std::numeric_limits<float>::quiet_NaN();
    if (r % 5 == 3)
      for (index_t i = 0; i < width; ++i) x(r, i) = -std::numeric_limits<float>::infinity();
  }
  const auto run = [&] {
    const resident<Ctx, float> in(ctx, x), doubled(ctx, tensor<float>(rows, width));
    const resident<Ctx, double> result(ctx, tensor<double>(rows, probe_columns));
    launch_rows(ctx, rows, width, probe_row<typename Ctx::space>{in.matrix(), doubled.matrix(), result.matrix()});
    return std::pair{doubled.get(), result.get()};
  };
  const auto [doubled, got] = run();
  const auto again = run();
  CHECK(same_bits(doubled, again.first));
  CHECK(same_bits(got, again.second));

  std::string wrong;
  for (index_t r = 0; r < rows && wrong.empty(); ++r) {
    const double lowest = -std::numeric_limits<double>::infinity();
    double sum = 0, size = 0, top = lowest, best = 0, count = 0;
    bool same = true;
    for (index_t i = 0; i < width; ++i) {
      const double v = x.at(r, i);
      same = same && (v != v || doubled.at(r, i) == 2 * v);
      if (v != v) continue;
      sum += v;
      size += std::abs(v);
      count += v > 0;
      if (v > top) top = v, best = static_cast<double>(i);
    }
    // A sum of `width` terms, in any order.
    const double allowed = bound<float>(sum, static_cast<double>(width), size);
    const bool sum_fits = got.at(r, probe_sum) == sum || std::abs(got.at(r, probe_sum) - sum) <= allowed;
    const bool fits = same && sum_fits && got.at(r, probe_max) == top && got.at(r, probe_argmax) == best &&
                      got.at(r, probe_argmax_value) == top && got.at(r, probe_count) == count &&
                      got.at(r, probe_single) == 1 && got.at(r, probe_neighbours) == 2 * top;
    if (!fits) {
      std::ostringstream message;
      message << "row " << r << (same ? "" : ", for_each missed an element") << ": sum " << got.at(r, probe_sum)
              << " want " << sum << " within " << allowed << ", max " << got.at(r, probe_max) << " want " << top
              << ", argmax " << got.at(r, probe_argmax) << " want " << best << ", count " << got.at(r, probe_count)
              << " want " << count << ", single " << got.at(r, probe_single) << ", neighbours "
              << got.at(r, probe_neighbours) << " want " << 2 * top;
      wrong = message.str();
    }
  }
  CHECK(wrong == "");
}

// y[i] += i, to see that every element is visited once.
template <class Space>
struct add_index {
  vector_view<std::int32_t, Space> y;
  GRAFT_HOST_DEVICE void operator()(index_t i) const { y[i] += static_cast<std::int32_t>(i) + 1; }
};

template <class Ctx>
void check_elements(Ctx& ctx, index_t count) {
  INFO("count " << count);
  tensor<std::int32_t> start;
  start.rows = 1;
  start.columns = count + 1;  // one more than is visited
  start.values.assign(static_cast<std::size_t>(count + 1), 7);
  const resident<Ctx, std::int32_t> y(ctx, start);
  launch_elements(ctx, count, add_index<typename Ctx::space>{y.vector()});
  const auto got = y.get();
  bool right = got.values.back() == 7;
  for (index_t i = 0; i < count; ++i)
    right = right && got.values[static_cast<std::size_t>(i)] == 8 + static_cast<std::int32_t>(i);
  CHECK(right);
}

// More blocks than any grid of ctx has.
template <class Ctx>
index_t beyond_a_grid(Ctx& ctx) {
  if constexpr (requires { ctx.multiprocessors(); }) {
    return index_t{32} * ctx.multiprocessors() + 1;
  } else {
    return 5001;
  }
}

template <class Ctx>
void check_row_laws(Ctx& ctx) {
  for (const index_t width : {1, 2, 31, 32, 33, 255, 256, 257, 1000, 1023, 1024, 1025, 1500, 4099})
    for (const index_t rows : {0, 1, 7, 8, 9, 65}) check_rows(ctx, rows, width);
  const index_t blocks = beyond_a_grid(ctx);
  check_rows(ctx, 8 * blocks, 3);  // more rows than warps in a grid
  check_rows(ctx, blocks, 1030);
  for (const index_t count : {0, 1, 255, 256, 257, 100003}) check_elements(ctx, count);
  check_elements(ctx, 256 * blocks);  // more elements than threads in a grid
}

}  // namespace graft::test
