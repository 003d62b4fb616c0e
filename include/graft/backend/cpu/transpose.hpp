// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Transposition of a matrix of two-byte elements, by blocks of whole cache lines.

#include <algorithm>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <graft/core/view.hpp>

namespace graft::detail {

#if defined(__SSE2__)
// to (8, 8) = from (8, 8)^T in registers: pairs of rows are interleaved by 2, 4 and 8 bytes. SSE2, which every x86-64
// has, so that it needs no compiler flag.
template <class T>
requires(sizeof(T) == 2) inline void transpose_8x8(T* to, index_t to_stride, const T* from, index_t from_stride) {
  const auto row = [=](index_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * from_stride)); };
  const auto write = [=](index_t i, __m128i values) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * to_stride), values);
  };
  const __m128i r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3), r4 = row(4), r5 = row(5), r6 = row(6), r7 = row(7);
  const __m128i a0 = _mm_unpacklo_epi16(r0, r1), a1 = _mm_unpackhi_epi16(r0, r1);
  const __m128i a2 = _mm_unpacklo_epi16(r2, r3), a3 = _mm_unpackhi_epi16(r2, r3);
  const __m128i a4 = _mm_unpacklo_epi16(r4, r5), a5 = _mm_unpackhi_epi16(r4, r5);
  const __m128i a6 = _mm_unpacklo_epi16(r6, r7), a7 = _mm_unpackhi_epi16(r6, r7);
  const __m128i b0 = _mm_unpacklo_epi32(a0, a2), b1 = _mm_unpackhi_epi32(a0, a2);
  const __m128i b2 = _mm_unpacklo_epi32(a1, a3), b3 = _mm_unpackhi_epi32(a1, a3);
  const __m128i b4 = _mm_unpacklo_epi32(a4, a6), b5 = _mm_unpackhi_epi32(a4, a6);
  const __m128i b6 = _mm_unpacklo_epi32(a5, a7), b7 = _mm_unpackhi_epi32(a5, a7);
  write(0, _mm_unpacklo_epi64(b0, b4));
  write(1, _mm_unpackhi_epi64(b0, b4));
  write(2, _mm_unpacklo_epi64(b1, b5));
  write(3, _mm_unpackhi_epi64(b1, b5));
  write(4, _mm_unpacklo_epi64(b2, b6));
  write(5, _mm_unpackhi_epi64(b2, b6));
  write(6, _mm_unpacklo_epi64(b3, b7));
  write(7, _mm_unpackhi_epi64(b3, b7));
}
#else
template <class T>
requires(sizeof(T) == 2) inline void transpose_8x8(T* to, index_t to_stride, const T* from, index_t from_stride) {
  for (index_t j = 0; j < 8; ++j)
    for (index_t i = 0; i < 8; ++i) to[j * to_stride + i] = from[i * from_stride + j];
}
#endif

// to (columns, rows) = from (rows, columns)^T. Strides count elements from one stored row to the next.
// Blocks of 32 x 32 (a cache line a row) pass through a dense copy: each line of either matrix is touched once, so that
// strides which put many lines into one set of the cache do no harm.
template <class T>
requires(sizeof(T) == 2) void transpose(T* to, index_t to_stride, const T* from, index_t from_stride, index_t rows,
                                        index_t columns) {
  constexpr index_t side = 32, unit = 8;
  alignas(64) T block[side * side];  // (columns, rows) of one block
  for (index_t row = 0; row < rows; row += side)
    for (index_t column = 0; column < columns; column += side) {
      const index_t height = std::min(side, rows - row), width = std::min(side, columns - column);
      const index_t whole_height = height / unit * unit, whole_width = width / unit * unit;
      const T* corner = from + row * from_stride + column;
      for (index_t i = 0; i < whole_height; i += unit)
        for (index_t j = 0; j < whole_width; j += unit)
          transpose_8x8(block + j * side + i, side, corner + i * from_stride + j, from_stride);
      for (index_t i = 0; i < height; ++i)
        for (index_t j = i < whole_height ? whole_width : 0; j < width; ++j)
          block[j * side + i] = corner[i * from_stride + j];
      for (index_t j = 0; j < width; ++j) {
        T* line = to + (column + j) * to_stride + row;
        if (height == side)
          std::copy_n(block + j * side, side, line);
        else
          std::copy_n(block + j * side, height, line);
      }
    }
}

}  // namespace graft::detail
