// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The two words that let one source serve CPU and CUDA. Without nvcc they vanish.

#include <cstdint>

#if defined(__CUDACC__)
#define GRAFT_HOST_DEVICE __host__ __device__
#define GRAFT_DEVICE __device__
#else
#define GRAFT_HOST_DEVICE
#define GRAFT_DEVICE
#endif

namespace graft {

// Every extent, offset and count of elements. 64 bits: a layer of 2^31 weights is not exotic.
using index_t = std::int64_t;

}  // namespace graft
