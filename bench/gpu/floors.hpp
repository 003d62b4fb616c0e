// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The least time that each measured piece of work can take on a card: it must do its floating-point operations, and
// it must move through device memory each input once and each output once.
//
//   floor = max(flops / P, bytes / B)      score = floor / measured      P, B: ceilings, measured on the card at hand
//
// Activations and weights are bf16 (2 bytes), gradients of weights, routing and optimizer state fp32 (4 bytes), counts
// and indices int32. T tokens, D width, F hidden width of an expert, E experts, K slots a token, V vocabulary.

#include <algorithm>

#include <graft/core/attention_shape.hpp>
#include <graft/core/host_device.hpp>

namespace bench {

using graft::index_t;

// What the card can do a second: operations of an 8192^3 bf16 product of random numbers, bytes read and written by a
// copy of 1 GiB.
struct ceilings {
  double flops = 0, bytes = 0;
};

struct work {
  double flops = 0, bytes = 0;

  constexpr work operator+(const work& other) const { return {flops + other.flops, bytes + other.bytes}; }
};

constexpr double floor_seconds(const work& w, const ceilings& c) {
  return std::max(w.flops / c.flops, w.bytes / c.bytes);
}

// ---- grouped products: M rows in E groups, y (M,N) = x (M,K) w_e (N,K)^T
// --------------------------------------------- flops = 2 M N K. Weights of `used` groups are read: an empty group's
// are not needed.

constexpr work grouped_forward_work(double m, double n, double k, double used) {
  return {2 * m * n * k, 2 * (m * k + used * n * k + m * n)};
}
// dx (M,K) = dy (M,N) w_e (N,K)
constexpr work grouped_input_gradient_work(double m, double n, double k, double used) {
  return {2 * m * n * k, 2 * (m * n + used * n * k + m * k)};
}
// dw_e (N,K) = dy_e^T x_e: every group's is written, in elements of `out` bytes; when it is added to, it is read too.
constexpr work grouped_weight_gradient_work(double m, double n, double k, double groups, double out, bool add) {
  return {2 * m * n * k, 2 * (m * n + m * k) + (add ? 2 : 1) * out * groups * n * k};
}

// ---- mixture layer with SwiGLU experts
// -------------------------------------------------------------------------------- With the gather inside the products,
// SwiGLU in their epilogue, and only x and the pre-activation H (T K, 2F) kept. forward: flops = 6 T K D F + 2 T D E
//   gather x 2TKD + write H 4TKF + write and read A 4TKF + write Y 2TKD + sum Y 2TKD + write out 2TD + weights 6EDF
// backward: twice the flops
//   gather dO twice 4TKD + read H 4TKF + write dH 4TKF + write and read A' 4TKF + read dH twice 8TKF + write and sum dX
//   4TKD + gather x 2TKD + write dx 2TD + weights 6EDF + their gradients, written in fp32, 12EDF

struct moe_sizes {
  double tokens, width, hidden, experts, slots;
};
constexpr work moe_forward_work(const moe_sizes& s) {
  const double rows = s.tokens * s.slots, weights = s.experts * s.width * s.hidden;
  return {6 * rows * s.width * s.hidden + 2 * s.tokens * s.width * s.experts,
          6 * rows * s.width + 8 * rows * s.hidden + 2 * s.tokens * s.width + 6 * weights};
}
constexpr work moe_backward_work(const moe_sizes& s) {
  const double rows = s.tokens * s.slots, weights = s.experts * s.width * s.hidden;
  return {12 * rows * s.width * s.hidden + 4 * s.tokens * s.width * s.experts,
          10 * rows * s.width + 20 * rows * s.hidden + 2 * s.tokens * s.width + 18 * weights};
}

// ---- causal attention
// ------------------------------------------------------------------------------------------------- forward: 2 S^2 d H
// B operations (half of the square is masked); reads qkv, writes out and log_sum_exp. backward: 2.5 times the
// operations; reads qkv, out, d_out, log_sum_exp, writes d_qkv.

constexpr work attention_forward_work(const graft::attention_shape& s) {
  const double t = static_cast<double>(s.tokens()), out = static_cast<double>(s.out_width());
  return {2 * t * static_cast<double>(s.positions) * out,
          2 * t * (static_cast<double>(s.qkv_width()) + out) + 4 * t * static_cast<double>(s.heads)};
}
constexpr work attention_backward_work(const graft::attention_shape& s) {
  const double t = static_cast<double>(s.tokens()), out = static_cast<double>(s.out_width());
  return {5 * t * static_cast<double>(s.positions) * out,
          2 * t * (2 * static_cast<double>(s.qkv_width()) + 2 * out) + 4 * t * static_cast<double>(s.heads)};
}

// ---- the rest
// ---------------------------------------------------------------------------------------------------------

// Linear layer and cross entropy, with both gradients: three products of 2 T D V. Reads x and the head, writes dx and
// the head's gradient (fp32). Logits need not exist in memory.
constexpr work cross_entropy_work(double tokens, double width, double vocabulary) {
  return {6 * tokens * width * vocabulary, 4 * tokens * width + 6 * width * vocabulary};
}

// AdamW: reads p, m, v (12) and the gradient (4), writes p, m, v (12) and the bf16 copy (2). The norm of the gradient
// and the zeros in its place are not counted, though graft's update does both.
constexpr work adamw_work(double parameters) { return {0, 30 * parameters}; }

// Router: reads the logits, writes K experts and weights a token. Backward: reads those, the logits and the gradient of
// the weights, writes that of the logits.
constexpr work router_forward_work(double tokens, double experts, double slots) {
  return {0, tokens * (4 * experts + 8 * slots)};
}
constexpr work router_backward_work(double tokens, double experts, double slots) {
  return {0, tokens * (8 * experts + 12 * slots)};
}

// Permutation. The plan: the experts of all slots in, two indices a slot out. Rows are 2D bytes.
constexpr work plan_work(double tokens, double slots) { return {0, 12 * tokens * slots}; }
constexpr work gather_work(double tokens, double slots, double width) {  // reads x once, writes a row a slot
  return {0, 2 * tokens * width * (1 + slots) + 4 * tokens * slots};
}
constexpr work combine_work(double tokens, double slots, double width) {  // reads a row a slot, writes out
  return {0, 2 * tokens * width * (1 + slots) + 8 * tokens * slots};
}
constexpr work combine_backward_work(double tokens, double slots,
                                     double width) {  // reads d_out and rows, writes d_rows
  return {0, 2 * tokens * width * (1 + 2 * slots) + 12 * tokens * slots};
}

// A training step: its operations run at P, and then AdamW's bytes at B; one cannot hide behind the other.
constexpr double step_floor_seconds(double flops, double parameters, const ceilings& c) {
  return flops / c.flops + adamw_work(parameters).bytes / c.bytes;
}

// One token of generation reads the weights that it uses, once, in bf16; the cache of keys and values comes on top:
// 2 tensors of (positions, kv_width) in each block.
constexpr work decode_work(double active_parameters, double blocks, double kv_width, double positions) {
  return {2 * active_parameters, 2 * active_parameters + 4 * blocks * kv_width * positions};
}

}  // namespace bench
