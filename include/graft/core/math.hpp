// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Scalar functions that vectorise on the CPU, where a call to libm in the inner loop of a softmax would
// cost more than the product before it. double goes to libm: it is there for gradient checks.

#include <bit>
#include <cmath>
#include <cstdint>

#include <graft/core/host_device.hpp>

namespace graft::math {

GRAFT_HOST_DEVICE inline double exp(double x) { return ::exp(x); }

// e^x in fp32: x = n ln2 + r, |r| <= ln2/2, a degree-6 polynomial in r, scaled by 2^n. Relative error below
// 3e-7; 0 below -87.3 (no denormals), infinity where a float ends, above 88.7228. NaN stays NaN. No branch.
GRAFT_HOST_DEVICE inline float exp(float x) {
#if defined(__CUDA_ARCH__)
  return ::expf(x);
#else
  constexpr float log2_e = 1.44269504088896341f;
  constexpr float ln2_high = 0.693359375f;
  constexpr float ln2_low = -2.12194440e-4f;
  const float clamped = x < -87.3f ? -87.3f : (x > 88.72284f ? 88.72284f : x);
  const float shifted = clamped * log2_e + 12582912.0f;  // 1.5 * 2^23: rounds to the nearest integer
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * ln2_high) - n * ln2_low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // n can be 128, one more than a float's exponent: scale in two steps.
  const auto exponent = std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(12582912.0f);
  const std::int32_t half = exponent >> 1;
  const float scale_a = std::bit_cast<float>((half + 127) << 23);
  const float scale_b = std::bit_cast<float>((exponent - half + 127) << 23);
  const float finite = p * scale_a * scale_b;
  const float low = x < -87.3f ? 0.0f : finite;
  const float high = x > 88.72284f ? INFINITY : low;
  return x != x ? x : high;
#endif
}

GRAFT_HOST_DEVICE inline float log(float x) { return ::logf(x); }
GRAFT_HOST_DEVICE inline double log(double x) { return ::log(x); }
GRAFT_HOST_DEVICE inline float sqrt(float x) { return ::sqrtf(x); }
GRAFT_HOST_DEVICE inline double sqrt(double x) { return ::sqrt(x); }

// 1 / (1 + e^-x)
template <class T>
GRAFT_HOST_DEVICE inline T sigmoid(T x) {
  return T(1) / (T(1) + exp(-x));
}

// x sigmoid(x)
template <class T>
GRAFT_HOST_DEVICE inline T silu(T x) {
  return x * sigmoid(x);
}

// silu(gate) up, and what comes back through it.
template <class T>
GRAFT_HOST_DEVICE inline T swiglu(T gate, T up) {
  return silu(gate) * up;
}
template <class T>
struct gate_and_up {
  T gate, up;
};
//   d_gate = d up s (1 + gate (1 - s)),   d_up = d gate s,   s = sigmoid(gate)
template <class T>
GRAFT_HOST_DEVICE inline gate_and_up<T> swiglu_gradient(T gate, T up, T d) {
  const T s = sigmoid(gate);
  return {d * up * s * (T(1) + gate * (T(1) - s)), d * gate * s};
}

}  // namespace graft::math
