// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// bfloat16 of CUDA C++ on the emulated device: the conversions that graft uses.

#include <cuda_runtime.h>

#include <graft/core/dtype.hpp>

struct __nv_bfloat16 {
  std::uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
// The device has one NaN.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return {value == value ? graft::bfloat16(value).bits : static_cast<unsigned short>(0x7fff)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float __bfloat162float(__nv_bfloat16 value) {
  graft::bfloat16 result;
  result.bits = value.bits;
  return static_cast<float>(result);
}
