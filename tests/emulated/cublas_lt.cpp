// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// D = alpha op(A) op(B) + beta C, column-major, by the definition. The sums of an element run over ascending depth.

#include <algorithm>
#include <cstring>
#include <vector>

#include <cublasLt.h>

#include <graft/core/dtype.hpp>

namespace {

double read(const void* data, cudaDataType_t type, std::int64_t i) {
  if (type == CUDA_R_64F) return static_cast<const double*>(data)[i];
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[i];
  return static_cast<float>(static_cast<const graft::bfloat16*>(data)[i]);
}
template <class Sum>
void write(void* data, cudaDataType_t type, std::int64_t i, Sum value) {
  if (type == CUDA_R_64F) static_cast<double*>(data)[i] = static_cast<double>(value);
  if (type == CUDA_R_32F) static_cast<float*>(data)[i] = static_cast<float>(value);
  if (type == CUDA_R_16BF) static_cast<graft::bfloat16*>(data)[i] = graft::bfloat16(static_cast<float>(value));
}

struct operand {
  const void* data;
  cublasLtMatrixLayoutOpaque_t layout;
};

template <class Sum>
void multiply(const cublasLtMatmulDescOpaque_t& how, Sum alpha, const operand& a, const operand& b, Sum beta,
              const operand& c, void* d, const cublasLtMatrixLayoutOpaque_t& d_layout) {
  const bool turn_a = how.operation_a == CUBLAS_OP_T, turn_b = how.operation_b == CUBLAS_OP_T;
  const auto m = static_cast<std::int64_t>(d_layout.rows), n = static_cast<std::int64_t>(d_layout.columns);
  const auto depth = static_cast<std::int64_t>(turn_a ? a.layout.rows : a.layout.columns);
  std::vector<Sum> left(static_cast<std::size_t>(m * depth)), sums(static_cast<std::size_t>(m));
  for (std::int64_t k = 0; k < depth; ++k)
    for (std::int64_t i = 0; i < m; ++i)
      left[static_cast<std::size_t>(k * m + i)] =
          static_cast<Sum>(read(a.data, a.layout.type, turn_a ? i * a.layout.pitch + k : k * a.layout.pitch + i));
  for (std::int64_t j = 0; j < n; ++j) {
    sums.assign(sums.size(), Sum(0));
    for (std::int64_t k = 0; k < depth; ++k) {
      const Sum right =
          static_cast<Sum>(read(b.data, b.layout.type, turn_b ? k * b.layout.pitch + j : j * b.layout.pitch + k));
      const Sum* column = left.data() + k * m;
      for (std::int64_t i = 0; i < m; ++i) sums[static_cast<std::size_t>(i)] += column[i] * right;
    }
    for (std::int64_t i = 0; i < m; ++i) {
      Sum value = alpha * sums[static_cast<std::size_t>(i)];
      if (beta != 0) value += beta * static_cast<Sum>(read(c.data, c.layout.type, j * c.layout.pitch + i));
      write(d, d_layout.type, j * d_layout.pitch + i, value);
    }
  }
}

// Whether a product of these shapes and pitches is one.
bool fits(const cublasLtMatmulDescOpaque_t& how, const cublasLtMatrixLayoutOpaque_t& a,
          const cublasLtMatrixLayoutOpaque_t& b, const cublasLtMatrixLayoutOpaque_t& d) {
  const bool turn_a = how.operation_a == CUBLAS_OP_T, turn_b = how.operation_b == CUBLAS_OP_T;
  const auto pitch_fits = [](const cublasLtMatrixLayoutOpaque_t& l) {
    return l.rows > 0 && l.columns > 0 && l.pitch >= static_cast<std::int64_t>(l.rows);
  };
  return (turn_a ? a.columns : a.rows) == d.rows && (turn_b ? b.rows : b.columns) == d.columns &&
         (turn_a ? a.rows : a.columns) == (turn_b ? b.columns : b.rows) && a.type == b.type && pitch_fits(a) &&
         pitch_fits(b) && pitch_fits(d);
}

}  // namespace

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "a status without a name";
}
const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t how, cublasComputeType_t compute, cudaDataType_t scale) {
  *how = {compute, scale, CUBLAS_OP_N, CUBLAS_OP_N};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t how, cublasLtMatmulDescAttributes_t which,
                                              const void* value, std::size_t bytes) {
  if (bytes != sizeof(cublasOperation_t)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(which == CUBLASLT_MATMUL_DESC_TRANSA ? &how->operation_a : &how->operation_b, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType_t type, std::uint64_t rows,
                                        std::uint64_t columns, std::int64_t pitch) {
  *layout = {type, rows, columns, pitch};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, std::size_t) {
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, const cublasLtMatmulDescOpaque_t* how,
                                              const cublasLtMatrixLayoutOpaque_t* a,
                                              const cublasLtMatrixLayoutOpaque_t* b,
                                              const cublasLtMatrixLayoutOpaque_t*,
                                              const cublasLtMatrixLayoutOpaque_t* d, cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t* result, int* found) {
  if (!fits(*how, *a, *b, *d)) return CUBLAS_STATUS_INVALID_VALUE;
  *result = {{}, 0, CUBLAS_STATUS_SUCCESS};
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, const cublasLtMatmulDescOpaque_t* how, const void* alpha, const void* a,
                              const cublasLtMatrixLayoutOpaque_t* a_layout, const void* b,
                              const cublasLtMatrixLayoutOpaque_t* b_layout, const void* beta, const void* c,
                              const cublasLtMatrixLayoutOpaque_t* c_layout, void* d,
                              const cublasLtMatrixLayoutOpaque_t* d_layout, const cublasLtMatmulAlgo_t*,
                              void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  if (!fits(*how, *a_layout, *b_layout, *d_layout)) return CUBLAS_STATUS_INVALID_VALUE;
  const auto queue = [&](auto zero) {
    using sum = decltype(zero);
    sum alpha_value, beta_value;
    std::memcpy(&alpha_value, alpha, sizeof(sum));
    std::memcpy(&beta_value, beta, sizeof(sum));
    return emulated::later(stream, [=, how = *how, left = operand{a, *a_layout}, right = operand{b, *b_layout},
                                    added = operand{c, *c_layout}, result = *d_layout] {
      std::memset(workspace, 0xff, std::min<std::size_t>(workspace_bytes, 4096));  // it is the library's
      multiply<sum>(how, alpha_value, left, right, beta_value, added, d, result);
    });
  };
  const int status = how->compute == CUBLAS_COMPUTE_64F ? queue(0.0) : queue(0.0f);
  return status == 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
