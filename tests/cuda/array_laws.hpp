// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every backend's whole-array steps and workspace satisfy, written on the context.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/core/philox.hpp>

#include "catch.hpp"
#include "resident.hpp"

namespace graft::test {

template <class Ctx>
void check_copies(Ctx& ctx) {
  for (const index_t n : {0, 1, 1000, 1 << 20}) {
    const auto source = tensor<float>::random(1, n, 5);
    const resident<Ctx, float> a(ctx, source), b(ctx, tensor<float>(1, n));
    copy(ctx, b.vector(), a.vector());
    CHECK(same_bits(b.get(), source));
    fill_zero(ctx, b.vector());
    CHECK(same_bits(b.get(), tensor<float>(1, n)));
    CHECK(same_bits(a.get(), source));
  }
  const buffer<float, typename Ctx::space> fresh(1000);
  tensor<float> seen(1, 1000, 3);
  copy_to_host(ctx, seen.values.data(), fresh.view());
  CHECK(same_bits(seen, tensor<float>(1, 1000)));  // buffers start at zero
  const resident<Ctx, float> two(ctx, tensor<float>(1, 2)), three(ctx, tensor<float>(1, 3));
  CHECK_THROWS_AS(copy(ctx, two.vector(), three.vector()), error);
  const resident<Ctx, float> square(ctx, tensor<float>(2, 2));
  CHECK_THROWS_AS(fill_zero(ctx, square.matrix().columns(0, 1)), error);
}

template <class Ctx>
void check_scan(Ctx& ctx) {
  const random_source source{3, random_stream::data};
  for (const index_t n : {0, 1, 2, 1000, 300001}) {
    INFO("n " << n);
    std::vector<std::int32_t> counts(static_cast<std::size_t>(n)), want{0};
    for (std::size_t i = 0; i < counts.size(); ++i) {
      counts[i] = static_cast<std::int32_t>(source.below(7, static_cast<std::uint64_t>(n), i));
      want.push_back(want.back() + counts[i]);
    }
    const resident<Ctx, std::int32_t> in(ctx, one_row(counts)),
        out(ctx, one_row(std::vector<std::int32_t>(counts.size() + 1, -5)));
    exclusive_scan(ctx, out.vector(), in.vector());
    CHECK(out.get().values == want);
    auto padded = counts;
    padded.push_back(99);
    const resident<Ctx, std::int32_t> both(ctx, one_row(padded));
    exclusive_scan(ctx, both.vector(), both.vector().rows(0, n));  // in place
    CHECK(both.get().values == want);
  }
}

template <class Ctx>
void check_counting_sort(Ctx& ctx) {
  const random_source source{4, random_stream::data};
  for (const index_t n : {0, 1, 33, 1000, 200003})
    for (const index_t bins : {1, 2, 3, 64, 257, 1024, 1025, 100000}) {
      INFO("n " << n << ", bins " << bins);
      std::vector<std::int32_t> keys(static_cast<std::size_t>(n));
      std::vector<std::vector<std::int32_t>> members(static_cast<std::size_t>(bins));
      for (std::size_t i = 0; i < keys.size(); ++i) {
        // A third is left out; the rest keeps to half of the bins, so that some are empty.
        const auto kept = source.below(3, static_cast<std::uint64_t>(n + bins), 2 * i) != 0;
        const auto bin =
            source.below(static_cast<std::uint64_t>(bins + 1) / 2, static_cast<std::uint64_t>(n + bins), 2 * i + 1);
        keys[i] = kept ? static_cast<std::int32_t>(bins - 1 - static_cast<index_t>(bin)) : -1;
        if (kept) members[static_cast<std::size_t>(keys[i])].push_back(static_cast<std::int32_t>(i));
      }
      std::vector<std::int32_t> want_offsets{0}, want_order;
      for (const auto& bin : members) {
        want_order.insert(want_order.end(), bin.begin(), bin.end());
        want_offsets.push_back(static_cast<std::int32_t>(want_order.size()));
      }
      want_order.resize(keys.size(), -1);
      const resident<Ctx, std::int32_t> in(ctx, one_row(keys));
      const resident<Ctx, std::int32_t> offsets(
          ctx, one_row(std::vector<std::int32_t>(static_cast<std::size_t>(bins + 1), -7)));
      const resident<Ctx, std::int32_t> order(ctx, one_row(std::vector<std::int32_t>(keys.size(), -7)));
      counting_sort(ctx, in.vector(), bins, offsets.vector(), order.vector());
      CHECK(offsets.get().values == want_offsets);
      CHECK(order.get().values == want_order);
    }
}

// Rows of keys with many ties, both zeros, infinities and NaN, as they are and as the columns of a matrix.
template <class T, class Ctx>
void check_argsort_rows(Ctx& ctx) {
  const random_source source{6, random_stream::data};
  for (const index_t rows : {0, 1, 2, 5, 256, 257})
    for (const index_t n : {0, 1, 2, 33, 1000}) {
      INFO("rows " << rows << ", n " << n);
      constexpr T infinite = std::numeric_limits<T>::infinity();
      const T few[] = {T(0),
                       -T(0),
                       T(1.5),
                       T(-1.5),
                       infinite,
                       -infinite,
                       std::numeric_limits<T>::quiet_NaN(),
                       -std::numeric_limits<T>::quiet_NaN(),
                       std::numeric_limits<T>::denorm_min(),
                       -std::numeric_limits<T>::max()};
      tensor<T> keys(rows, n), transposed(n, rows);
      for (index_t r = 0; r < rows; ++r)
        for (index_t i = 0; i < n; ++i) {
          const auto major = static_cast<std::uint64_t>(r), minor = static_cast<std::uint64_t>(i);
          const bool plain = r % 2 == 0 && source.below(4, major, 2 * minor) != 0;
          keys(r, i) = plain ? static_cast<T>(source.normal(major, 2 * minor + 1))
                             : few[source.below(std::size(few), major, 2 * minor + 1)];
          transposed(i, r) = keys(r, i);
        }
      tensor<std::int32_t> want(rows, n);
      for (index_t r = 0; r < rows; ++r) {
        const auto row = want.values.begin() + r * n;
        std::iota(row, row + n, 0);
        std::stable_sort(row, row + n, [&](std::int32_t a, std::int32_t b) {
          const T left = keys(r, a), right = keys(r, b);
          return std::isnan(left) || std::isnan(right) ? !std::isnan(left) && std::isnan(right) : left > right;
        });
      }
      const resident<Ctx, T> in(ctx, keys), columns(ctx, transposed);
      const resident<Ctx, std::int32_t> order(ctx, tensor<std::int32_t>(rows, n)),
          again(ctx, tensor<std::int32_t>(rows, n));
      argsort_rows(ctx, order.matrix(), in.matrix());
      CHECK((order.get().values == want.values));
      matrix_view<T, typename Ctx::space> turned = columns.matrix();
      std::swap(turned.extents[0], turned.extents[1]);
      std::swap(turned.strides[0], turned.strides[1]);
      argsort_rows(ctx, again.matrix(), turned);
      CHECK((again.get().values == want.values));
    }
  const resident<Ctx, T> keys(ctx, tensor<T>(2, 3));
  const resident<Ctx, std::int32_t> short_order(ctx, tensor<std::int32_t>(2, 2)), wide(ctx, tensor<std::int32_t>(2, 4));
  CHECK_THROWS_AS(argsort_rows(ctx, short_order.matrix(), keys.matrix()), error);
  CHECK_THROWS_AS(argsort_rows(ctx, wide.matrix().columns(0, 3), keys.matrix()), error);
}

// A step that takes workspace in nested scopes asks the system for memory the first time only.
template <class Ctx>
void check_workspace(Ctx& ctx, std::uintptr_t alignment) {
  const auto step = [&] {
    workspace_scope outer(ctx);
    const auto a = ctx.template allocate<float>(1000, 300);
    CHECK(reinterpret_cast<std::uintptr_t>(a.data) % alignment == 0);
    CHECK(a.extent(0) == 1000);
    CHECK(a.extent(1) == 300);
    CHECK(a.contiguous());
    float* again = nullptr;
    {
      workspace_scope inner(ctx);
      const auto b = ctx.template allocate<std::int32_t>(3);
      const auto c = ctx.template allocate<std::int32_t>(700000);
      CHECK(reinterpret_cast<std::uintptr_t>(c.data) % alignment == 0);
      CHECK((b.data + 3 <= c.data || c.data + 700000 <= b.data));
      fill_zero(ctx, a);
      fill_zero(ctx, b);
      fill_zero(ctx, c);
    }
    {
      workspace_scope inner(ctx);
      again = ctx.template allocate<float>(700000).data;
    }
    workspace_scope inner(ctx);
    CHECK(ctx.template allocate<float>(700000).data == again);  // given back, given out again
  };
  step();
  const auto requests = ctx.workspace().requests();
  CHECK(requests > 0);
  for (int i = 0; i < 3; ++i) step();
  CHECK(ctx.workspace().requests() == requests);
  CHECK(ctx.workspace().live_bytes() == 0);
  CHECK(ctx.workspace().peak_bytes() >= 4 * (300000 + 700000));
  ctx.synchronize();
}

}  // namespace graft::test
