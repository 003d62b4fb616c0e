// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The functions of graft/backend/cuda/intrinsics.cuh on the emulated device. Which lane holds which element is as in
// the PTX ISA: ldmatrix (.m8n8, .b16) and mma.m16n8k16 with .bf16 operands.
//
// An asynchronous copy arrives as late as it may, when its thread waits for it, or as early as it may, when it is asked
// for: a missing wait shows in the one, a buffer that is still read in the other. In forward order all come late, in
// reverse order all early, and each by chance where the order is left to chance.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <cuda_runtime.h>

namespace emulated {

struct async_copies {
  struct one {
    void* to;
    const void* from;
    std::size_t bytes;  // the rest of 16 is zero
    unsigned group;
    bool early;
  };
  std::vector<one> waiting;
  unsigned groups = 0;  // committed
  void clear() {
    waiting.clear();
    groups = 0;
  }
};
async_copies& copies_of_this_thread();
bool copy_comes_early();

inline void arrive(const async_copies::one& copy) {
  std::byte bytes[16] = {};
  std::memcpy(bytes, copy.from, copy.bytes);
  std::memcpy(copy.to, bytes, 16);
}
inline bool at_multiple_of_16(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

// A lane's four sums of an mma whose operands all lanes have given: a and b one after the other.
void add_products(float (&d)[4], const std::byte* operands, int lane);

// The rows of all lanes: element (matrix, row, column) as its bits.
struct loaded_matrices {
  const std::byte* rows;
  explicit loaded_matrices(const char* what, const void* shared_row) {
    if (!at_multiple_of_16(shared_row)) fail("ldmatrix: a row does not begin at a multiple of 16 bytes");
    rows = exchange(what, 0xffffffffu, shared_row, 16);
  }
  std::uint32_t at(int matrix, int row, int column) const {
    std::uint16_t bits = 0;
    std::memcpy(&bits, rows + 32 * (8 * matrix + row) + 2 * column, 2);
    return bits;
  }
};

}  // namespace emulated

namespace graft::detail {

inline void copy_async_16(void* shared, const void* global, int valid_bytes) {
  if (valid_bytes < 0 || valid_bytes > 16) emulated::fail("cp.async: more than 16 or less than 0 bytes");
  if (!emulated::at_multiple_of_16(shared) || !emulated::at_multiple_of_16(global))
    emulated::fail("cp.async: an address is no multiple of 16 bytes");
  emulated::async_copies& copies = emulated::copies_of_this_thread();
  copies.waiting.push_back(
      {shared, global, static_cast<std::size_t>(valid_bytes), copies.groups, emulated::copy_comes_early()});
  if (copies.waiting.back().early) emulated::arrive(copies.waiting.back());
}
inline void copy_async_commit() { ++emulated::copies_of_this_thread().groups; }
template <int Pending>
void copy_async_wait() {
  emulated::async_copies& copies = emulated::copies_of_this_thread();
  std::size_t kept = 0;
  for (const auto& copy : copies.waiting) {
    if (copy.group + Pending >= copies.groups) {
      copies.waiting[kept++] = copy;
    } else if (!copy.early) {
      emulated::arrive(copy);
    }
  }
  copies.waiting.resize(kept);
}

inline void load_matrix_x4(std::uint32_t (&r)[4], const void* shared_row) {
  const emulated::loaded_matrices from("ldmatrix", shared_row);
  const int row = emulated::lane() / 4, column = emulated::lane() % 4 * 2;
  for (int m = 0; m < 4; ++m) r[m] = from.at(m, row, column) | from.at(m, row, column + 1) << 16;
}
inline void load_matrix_x4_transposed(std::uint32_t (&r)[4], const void* shared_row) {
  const emulated::loaded_matrices from("ldmatrix.trans", shared_row);
  const int row = emulated::lane() / 4, column = emulated::lane() % 4 * 2;
  for (int m = 0; m < 4; ++m) r[m] = from.at(m, column, row) | from.at(m, column + 1, row) << 16;
}

// Lane i holds, with g = i / 4 and t = i % 4:
//   a[0] (g, 2t), a[1] (g + 8, 2t), a[2] (g, 2t + 8), a[3] (g + 8, 2t + 8), each with the next column
//   b[0] (2t, g), b[1] (2t + 8, g), each with the next row
//   d[0] (g, 2t), d[1] (g, 2t + 1), d[2] (g + 8, 2t), d[3] (g + 8, 2t + 1)
inline void multiply_add_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  std::uint32_t mine[6];
  std::memcpy(mine, a, sizeof(a));
  std::memcpy(mine + 4, b, sizeof(b));
  emulated::add_products(d, emulated::exchange("mma", 0xffffffffu, mine, sizeof(mine)), emulated::lane());
}

// Results below the smallest normal number become 0.
inline float exp2_approximate(float x) {
  const float result = std::exp2(x);
  return result < std::numeric_limits<float>::min() ? 0.0f : result;
}

}  // namespace graft::detail
