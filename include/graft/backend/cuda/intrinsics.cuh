// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The device instructions that CUDA C++ has no name for, for compute capability 8.0 and above: asynchronous copies to
// shared memory, matrix loads for the tensor cores, their bf16 product, and a power of two. Nothing else in the library
// holds assembly. Source: NVIDIA, PTX ISA, cp.async, ldmatrix and mma.

#ifdef GRAFT_EMULATED_CUDA
#include <emulated_intrinsics.hpp>
#else

#include <cstdint>

#include <cuda_runtime.h>

namespace graft::detail {

// Starts a copy of 16 bytes, the first valid_bytes of them from global memory and zeros for the rest. Past the L1
// cache. Requires: both addresses are multiples of 16, even where valid_bytes is 0 and nothing is read; 0 <=
// valid_bytes <= 16.
__device__ inline void copy_async_16(void* shared, const void* global, int valid_bytes) {
  const auto target = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(__cvta_generic_to_global(global)),
               "r"(valid_bytes)
               : "memory");
}

// Closes a group: the calling thread's copies since the last commit.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the Pending youngest groups of the calling thread are under way. The copies of other threads are
// seen after the barrier that follows.
template <int Pending>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements. Lane i gives the address of row i % 8 of matrix i / 8; lane i receives in
// r[m] the elements 2 (i % 4) and 2 (i % 4) + 1 of row i / 4 of matrix m, the lower one in the low half.
// Requires: called by the whole warp; rows at multiples of 16 bytes in shared memory.
__device__ inline void load_matrix_x4(std::uint32_t (&r)[4], const void* shared_row) {
  const auto source = static_cast<unsigned>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(source)
               : "memory");
}

// The same, each matrix transposed on the way: lane i receives in r[m] the elements of rows 2 (i % 4) and
// 2 (i % 4) + 1 in column i / 4.
__device__ inline void load_matrix_x4_transposed(std::uint32_t (&r)[4], const void* shared_row) {
  const auto source = static_cast<unsigned>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(source)
               : "memory");
}

// d += a b, a (16,16) and b (16,8) in bf16, d (16,8) and the sums in fp32. With i the lane, g = i / 4 and t = i % 4:
//   a[0], a[1], a[2], a[3]   rows g, g + 8, g, g + 8; columns 2t and 2t + 1, and 8 more for a[2] and a[3]
//   b[0], b[1]               column g; rows 2t and 2t + 1, and 8 more for b[1]
//   d[0], d[1], d[2], d[3]   columns 2t, 2t + 1 of row g, then of row g + 8
// Requires: called by the whole warp.
__device__ inline void multiply_add_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// 2^x within two units in the last place; results below the smallest normal number become 0. One instruction, where
// exp2f() takes four to keep those.
__device__ inline float exp2_approximate(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace graft::detail

#endif
