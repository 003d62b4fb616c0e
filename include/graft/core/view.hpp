// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Views: a pointer, extents, strides and the memory it points into. A view does not own.
//
// Shape letters used everywhere: B sequences, S positions, T = B*S tokens, D width, H heads, G key/value
// heads, F hidden width of an FFN, V vocabulary, L blocks, E experts, K slots a token, C capacity, N branches.

#include <concepts>
#include <type_traits>

#include <graft/core/host_device.hpp>

namespace graft {

struct host_space {};
struct device_space {};

// view<T, Rank, Space>: row-major unless made by hand with other strides. Space is a tag: a function for
// one backend does not accept the other's views. Elements are read and written through a const view
// object, as with std::span; const elements are view<const T, ...>, to which view<T, ...> converts.
template <class T, int Rank, class Space = host_space>
struct view {
  static_assert(Rank >= 1 && Rank <= 4, "graft::view: the rank is not 1 to 4. Merge or split axes.");
  using element_type = T;
  using space = Space;
  static constexpr int rank = Rank;

  T* data = nullptr;
  index_t extents[Rank] = {};
  index_t strides[Rank] = {};

  view() = default;

  template <std::integral... Extents>
  requires(sizeof...(Extents) == Rank) GRAFT_HOST_DEVICE constexpr explicit view(T* pointer, Extents... sizes)
      : data(pointer), extents{static_cast<index_t>(sizes)...} {
    index_t stride = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      strides[axis] = stride;
      stride *= extents[axis];
    }
  }

  // A template so that view<const T> does not declare a conversion to itself.
  template <std::same_as<const T> U>
  requires(!std::is_const_v<T>) GRAFT_HOST_DEVICE constexpr operator view<U, Rank, Space>() const {
    view<const T, Rank, Space> result;
    result.data = data;
    for (int axis = 0; axis < Rank; ++axis) {
      result.extents[axis] = extents[axis];
      result.strides[axis] = strides[axis];
    }
    return result;
  }

  GRAFT_HOST_DEVICE constexpr index_t extent(int axis) const { return extents[axis]; }
  GRAFT_HOST_DEVICE constexpr index_t size() const {
    index_t count = 1;
    for (int axis = 0; axis < Rank; ++axis) count *= extents[axis];
    return count;
  }
  GRAFT_HOST_DEVICE constexpr bool empty() const { return data == nullptr || size() == 0; }
  GRAFT_HOST_DEVICE constexpr bool contiguous() const {
    index_t stride = 1;
    for (int axis = Rank - 1; axis >= 0; --axis) {
      if (extents[axis] > 1 && strides[axis] != stride) return false;
      stride *= extents[axis];
    }
    return true;
  }

  template <std::integral... Indices>
  requires(sizeof...(Indices) == Rank) GRAFT_HOST_DEVICE constexpr T& operator()(Indices... indices) const {
    const index_t at[Rank] = {static_cast<index_t>(indices)...};
    index_t offset = 0;
    for (int axis = 0; axis < Rank; ++axis) offset += at[axis] * strides[axis];
    return data[offset];
  }

  // The first element of slice i of the outermost axis: a row, for a matrix.
  GRAFT_HOST_DEVICE constexpr T* row(index_t i) const { return data + i * strides[0]; }

  // Slice i of the outermost axis, one rank lower.
  GRAFT_HOST_DEVICE constexpr auto operator[](index_t i) const requires(Rank > 1) {
    view<T, (Rank > 1 ? Rank - 1 : 1), Space> result;
    result.data = row(i);
    for (int axis = 1; axis < Rank; ++axis) {
      result.extents[axis - 1] = extents[axis];
      result.strides[axis - 1] = strides[axis];
    }
    return result;
  }
  GRAFT_HOST_DEVICE constexpr T& operator[](index_t i) const requires(Rank == 1) { return data[i * strides[0]]; }

  // Rows [begin, end) of the outermost axis.
  GRAFT_HOST_DEVICE constexpr view rows(index_t begin, index_t end) const {
    view result = *this;
    result.data = row(begin);
    result.extents[0] = end - begin;
    return result;
  }

  // Columns [begin, end) of the innermost axis.
  GRAFT_HOST_DEVICE constexpr view columns(index_t begin, index_t end) const {
    view result = *this;
    result.data = data + begin * strides[Rank - 1];
    result.extents[Rank - 1] = end - begin;
    return result;
  }
};

template <class T, class Space = host_space>
using vector_view = view<T, 1, Space>;
template <class T, class Space = host_space>
using matrix_view = view<T, 2, Space>;

// The same elements under new extents. Requires: contiguous, same number of elements.
template <class T, int Rank, class Space, std::integral... Extents>
GRAFT_HOST_DEVICE constexpr auto reshape(const view<T, Rank, Space>& source, Extents... extents) {
  return view<T, static_cast<int>(sizeof...(Extents)), Space>(source.data, extents...);
}

}  // namespace graft
