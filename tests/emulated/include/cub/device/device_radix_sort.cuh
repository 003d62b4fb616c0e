// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// cub::DeviceRadixSort on the emulated device: a stable sort by some bits of the keys. Its temporary memory is
// overwritten.

#include <algorithm>
#include <numeric>
#include <vector>

#include <cuda_runtime.h>

namespace cub {

struct DeviceRadixSort {
  template <class Key, class Value>
  static cudaError_t SortPairs(void* memory, std::size_t& bytes, const Key* keys_in, Key* keys_out,
                               const Value* values_in, Value* values_out, int count, int begin_bit, int end_bit,
                               cudaStream_t stream) {
    if (memory == nullptr) {
      bytes = static_cast<std::size_t>(count) * (sizeof(Key) + sizeof(Value)) + 1;
      return cudaSuccess;
    }
    return static_cast<cudaError_t>(emulated::later(stream, [=, size = bytes] {
      std::memset(memory, 0xff, size);
      const auto bits = static_cast<unsigned>(end_bit - begin_bit);
      const Key mask = bits >= 8 * sizeof(Key) ? ~Key{0} : static_cast<Key>((Key{1} << bits) - 1);
      const auto key = [&](int i) { return static_cast<Key>(keys_in[i] >> begin_bit) & mask; };
      std::vector<int> order(static_cast<std::size_t>(count));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return key(a) < key(b); });
      for (int i = 0; i < count; ++i) {
        keys_out[i] = keys_in[order[static_cast<std::size_t>(i)]];
        values_out[i] = values_in[order[static_cast<std::size_t>(i)]];
      }
    }));
  }
};

}  // namespace cub
