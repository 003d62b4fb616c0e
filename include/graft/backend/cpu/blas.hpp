// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One tile of a product by a BLAS (OpenBLAS): fp32 and fp64, and bfloat16 through fp32 where nothing better is at hand.

// OpenBLAS puts a type of this name into the global namespace, where it would make graft::bfloat16 ambiguous.
#define bfloat16 openblas_bfloat16
#include <cblas.h>
#undef bfloat16

#include <type_traits>

#include <graft/backend/cpu/tile.hpp>
#include <graft/core/dtype.hpp>

namespace graft::detail {

// A BLAS with threads of its own ignores OpenMP's setting: told once to stay on the calling thread.
inline void keep_blas_sequential() {
  constexpr int own_threads = 1;  // openblas_get_parallel: 0 sequential, 1 threads, 2 OpenMP
  static const bool once = [] {
    if (openblas_get_parallel() == own_threads) openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(once);
}

template <product_form Form, class T>
requires(std::is_same_v<T, float> || std::is_same_v<T, double>) void blas_tile(const tile<T, T>& t) {
  keep_blas_sequential();
  const CBLAS_TRANSPOSE a_op = Form == product_form::tn ? CblasTrans : CblasNoTrans;
  const CBLAS_TRANSPOSE b_op = Form == product_form::nt ? CblasTrans : CblasNoTrans;
  const int m = library_int(t.rows), n = library_int(t.columns), k = library_int(t.depth);
  const int lda = library_int(t.a_stride), ldb = library_int(t.b_stride), ldc = library_int(t.c_stride);
  const T beta = t.add ? T(1) : T(0);
  if constexpr (std::is_same_v<T, float>)
    cblas_sgemm(CblasRowMajor, a_op, b_op, m, n, k, 1.0f, t.a, lda, t.b, ldb, beta, t.c, ldc);
  else
    cblas_dgemm(CblasRowMajor, a_op, b_op, m, n, k, 1.0, t.a, lda, t.b, ldb, beta, t.c, ldc);
}

// bfloat16 operands are widened, so the sums are those of fp32; the result is rounded once.
template <product_form Form, class Out>
void blas_tile(const tile<bfloat16, Out>& t) {
  constexpr bool a_transposed = Form == product_form::tn, b_transposed = Form == product_form::nt;
  const index_t a_rows = a_transposed ? t.depth : t.rows, a_columns = a_transposed ? t.rows : t.depth;
  const index_t b_rows = b_transposed ? t.columns : t.depth, b_columns = b_transposed ? t.depth : t.columns;
  constexpr bool direct = std::is_same_v<Out, float>;
  thread_local tile_scratch scratch;
  float* a = scratch.get<float>(a_rows * a_columns + b_rows * b_columns + (direct ? 0 : t.rows * t.columns));
  float* b = a + a_rows * a_columns;
  const auto widen = [](float* to, const bfloat16* from, index_t stride, index_t rows, index_t columns) {
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j) to[i * columns + j] = from[i * stride + j];
  };
  widen(a, t.a, t.a_stride, a_rows, a_columns);
  widen(b, t.b, t.b_stride, b_rows, b_columns);
  if constexpr (direct) {
    blas_tile<Form, float>({t.rows, t.columns, t.depth, a, a_columns, b, b_columns, t.c, t.c_stride, t.add});
  } else {
    float* c = b + b_rows * b_columns;
    blas_tile<Form, float>({t.rows, t.columns, t.depth, a, a_columns, b, b_columns, c, t.columns, false});
    for (index_t i = 0; i < t.rows; ++i)
      for (index_t j = 0; j < t.columns; ++j) {
        Out& out = t.c[i * t.c_stride + j];
        out = Out(t.add ? float(out) + c[i * t.columns + j] : c[i * t.columns + j]);
      }
  }
}

}  // namespace graft::detail
