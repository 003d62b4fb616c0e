// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Row algorithms: numerics written once for every backend, over a Group.
//
// A row algorithm is a trivially copyable functor that works on one row with one group:
//
//   struct scale_rows {
//     matrix_view<float, Space> x;  // (T, D)
//     template <class G>
//     GRAFT_HOST_DEVICE void operator()(G& group, index_t row) const {
//       float* values = x.row(row);
//       const float total = group.sum(x.extent(1), [=](index_t i) { return values[i]; });
//       group.for_each(x.extent(1), [=](index_t i) { values[i] /= total; });
//     }
//   };
//   launch_rows(ctx, x.extent(0), x.extent(1), scale_rows{x});
//
// Every backend defines, on its context:
//   launch_rows(ctx, row_count, row_width_hint, algorithm)  algorithm(group, row) for every row in [0, row_count)
//   launch_elements(ctx, count, f)                          f(i) for every i in [0, count)
// Rows (elements) run in any order and at the same time: no row may read what another writes. row_width_hint
// is about how many elements a row has; it chooses how much work goes together and how wide a group is, never
// the result on the CPU. Neither algorithm nor f may throw: they may run on a GPU or inside a parallel region.

#include <concepts>
#include <type_traits>

#include <graft/core/host_device.hpp>

namespace graft {

// What group.argmax returns.
template <class T>
struct indexed_value {
  T value;
  index_t index;
};

// Concept Group: the threads that share one row. All members of a group make the same calls in the same order.
//
//   group.for_each(n, f)              f(i) for i in [0, n), each once, in any order and at the same time
//   group.reduce(n, f, op, identity)  op over f(0) ... f(n-1) and the identity; op is associative and commutative
//   group.sum(n, f)                   the sum, 0 when n = 0
//   group.max(n, f)                   the largest, the type's lowest (minus infinity) when n = 0; passes over NaN
//   group.argmax(n, f)                {value, index} of the largest, ties to the lower index; passes over NaN;
//                                     {lowest, 0} when nothing is above the lowest
//   group.single(f)                   f() once, by one member
//   group.sync()                      what members wrote before is seen by all after
//
// f of a reduction is pure and returns an arithmetic type (turn bfloat16 into float). It may be called more than once
// for an index. What a reduction returns is known to every member, and is the same bits each time.
// Between a for_each or single that writes and a call that reads what another index wrote there must be a sync.
//
// Models: serial_group (backend/cpu/rows.hpp), warp and block groups (backend/cuda/rows.cuh), shuffled_group (tests).
// Laws: tests/backend/rows.cpp. A row algorithm gives the same result under every model, but for the rounding of sums
// taken in another order.
template <class G>
concept Group = requires(G& group, index_t n, float (*value)(index_t), float (*op)(float, float),
                         void (*visit)(index_t), void (*once)()) {
  group.for_each(n, visit);
  { group.reduce(n, value, op, 0.0f) } -> std::same_as<float>;
  { group.sum(n, value) } -> std::same_as<float>;
  { group.max(n, value) } -> std::same_as<float>;
  { group.argmax(n, value) } -> std::same_as<indexed_value<float>>;
  group.single(once);
  group.sync();
};

}  // namespace graft
