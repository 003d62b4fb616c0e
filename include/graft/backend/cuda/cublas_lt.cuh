// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// cuBLASLt as the context holds it: one handle, one workspace, and one plan for each shape seen so far, so that a
// product in a training step is one look-up and one call.

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <type_traits>

#include <graft/backend/cuda/buffer.cuh>
#include <graft/core/dtype.hpp>

namespace graft::detail {

template <class T>
inline constexpr cudaDataType_t cuda_data_type = std::is_same_v<T, double>     ? CUDA_R_64F
                                                 : std::is_same_v<T, bfloat16> ? CUDA_R_16BF
                                                                               : CUDA_R_32F;

// What a plan depends on: column-major C (m, n) = op(A) (m, k) op(B) (k, n), pitches in elements, alignments in bytes.
struct device_matmul_key {
  cudaDataType_t input, output;
  bool transpose_a, transpose_b;
  index_t m, n, k;
  index_t pitch_a, pitch_b, pitch_c;
  std::uint32_t alignment_a, alignment_b, alignment_c;

  auto operator<=>(const device_matmul_key&) const = default;
};

// Descriptors and algorithm: plain values, nothing to release.
struct device_matmul_plan {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, c;
  cublasLtMatmulAlgo_t algorithm;
};

// The largest power of two up to 256 that divides the address: what cuBLASLt calls a pointer's alignment.
inline std::uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer) | std::uintptr_t{256};
  return static_cast<std::uint32_t>(address & (~address + 1));
}

// Order: the same shape runs the same algorithm, chosen by cuBLASLt's heuristic among those whose sums have a fixed
// order and are kept in fp32 or fp64: split sums go through the workspace, never through atomics or the output's type.
// fp32 products are full fp32: TF32 must be asked for, and is not.
class cublas_lt {
 public:
  cublas_lt() : workspace_(workspace_bytes) { GRAFT_CUBLAS(cublasLtCreate(&handle_)); }
  cublas_lt(const cublas_lt&) = delete;
  cublas_lt& operator=(const cublas_lt&) = delete;
  ~cublas_lt() { (void)cublasLtDestroy(handle_); }

  // C = op(A) op(B) + beta C. Scale is the accumulator's type.
  template <class Scale>
  void multiply(const device_matmul_key& key, const void* a, const void* b, void* c, Scale beta, cudaStream_t stream) {
    auto found = plans_.find(key);
    if (found == plans_.end()) {
      found = plans_.try_emplace(key).first;  // made in place: what a descriptor holds is cuBLASLt's affair
      try {
        make_plan(key, found->second);
      } catch (...) {
        plans_.erase(found);
        throw;
      }
    }
    device_matmul_plan& plan = found->second;
    const Scale alpha = 1;
    GRAFT_CUBLAS(cublasLtMatmul(handle_, &plan.operation, &alpha, a, &plan.a, b, &plan.b, &beta, c, &plan.c, c, &plan.c,
                                &plan.algorithm, workspace_.data(), workspace_bytes, stream));
  }

  std::size_t plan_count() const { return plans_.size(); }

 private:
  static constexpr std::size_t workspace_bytes = std::size_t{32} << 20;

  static void describe(cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type, index_t rows, index_t columns,
                       index_t pitch) {
    GRAFT_CUBLAS(cublasLtMatrixLayoutInit(&layout, type, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), pitch));
  }

  void make_plan(const device_matmul_key& key, device_matmul_plan& plan) const {
    const bool wide = key.input == CUDA_R_64F;
    GRAFT_CUBLAS(cublasLtMatmulDescInit(&plan.operation, wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                        wide ? CUDA_R_64F : CUDA_R_32F));
    const auto transpose = [&](cublasLtMatmulDescAttributes_t which, bool yes) {
      const cublasOperation_t operation = yes ? CUBLAS_OP_T : CUBLAS_OP_N;
      GRAFT_CUBLAS(cublasLtMatmulDescSetAttribute(&plan.operation, which, &operation, sizeof(operation)));
    };
    transpose(CUBLASLT_MATMUL_DESC_TRANSA, key.transpose_a);
    transpose(CUBLASLT_MATMUL_DESC_TRANSB, key.transpose_b);
    describe(plan.a, key.input, key.transpose_a ? key.k : key.m, key.transpose_a ? key.m : key.k, key.pitch_a);
    describe(plan.b, key.input, key.transpose_b ? key.n : key.k, key.transpose_b ? key.k : key.n, key.pitch_b);
    describe(plan.c, key.output, key.m, key.n, key.pitch_c);

    cublasLtMatmulPreferenceOpaque_t wish;
    GRAFT_CUBLAS(cublasLtMatmulPreferenceInit(&wish));
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, auto value) {
      GRAFT_CUBLAS(cublasLtMatmulPreferenceSetAttribute(&wish, which, &value, sizeof(value)));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_bytes});
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignment_a);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignment_b);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignment_c);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignment_c);

    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, &plan.operation, &plan.a, &plan.b, &plan.c,
                                                                 &plan.c, &wish, 1, &result, &found);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) GRAFT_CUBLAS(status);
    GRAFT_CHECK(status == CUBLAS_STATUS_SUCCESS && found == 1, "gemm: cuBLASLt has no algorithm for m=", key.m,
                ", n=", key.n, ", k=", key.k, ", pitches ", key.pitch_a, ", ", key.pitch_b, ", ", key.pitch_c,
                ", alignments ", key.alignment_a, ", ", key.alignment_b, ", ", key.alignment_c, " bytes");
    plan.algorithm = result.algo;
  }

  buffer<std::byte, device_space> workspace_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<device_matmul_key, device_matmul_plan> plans_;
};

}  // namespace graft::detail
