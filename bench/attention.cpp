// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Speed of attention on the CPU. Operations counted: 2 S^2 d H B forward, 5 S^2 d H B backward, the half of the square
// that the mask leaves.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include <graft/backend/buffer.hpp>
#include <graft/backend/cpu/context.hpp>
#include <graft/backend/cpu/rows.hpp>
#include <graft/core/philox.hpp>
#include <graft/ops/attention.hpp>

namespace {

using namespace graft;

// The best of a few repetitions, in seconds.
template <class F>
double best_time(const F& f) {
  double best = 1e30, total = 0;
  for (int i = 0; i < 20 && total < 0.6; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

template <class T>
void measure(context<cpu>& ctx, const attention_shape& shape, const char* type) {
  const index_t tokens = shape.tokens();
  buffer<T, host_space> qkv(tokens * shape.qkv_width()), d_qkv(tokens * shape.qkv_width());
  buffer<T, host_space> out(tokens * shape.out_width()), d_out(tokens * shape.out_width());
  buffer<float, host_space> log_sum_exp(tokens * shape.heads);
  const random_source random{1};
  for (index_t i = 0; i < qkv.size(); ++i) qkv.data()[i] = T(static_cast<float>(random.normal(0, i)));
  for (index_t i = 0; i < d_out.size(); ++i) d_out.data()[i] = T(static_cast<float>(random.normal(1, i)));

  const auto qkv_view = qkv.view(tokens, shape.qkv_width()), d_qkv_view = d_qkv.view(tokens, shape.qkv_width());
  const auto out_view = out.view(tokens, shape.out_width()), d_out_view = d_out.view(tokens, shape.out_width());
  const auto log_view = log_sum_exp.view(tokens, shape.heads);
  const double forward = best_time([&] { attention_forward(ctx, out_view, log_view, qkv_view, shape); });
  const double backward =
      best_time([&] { attention_backward(ctx, d_qkv_view, d_out_view, out_view, log_view, qkv_view, shape); });

  const double operations = 2.0 * shape.positions * shape.positions * shape.head_dim * shape.heads * shape.sequences;
  std::printf(
      "B=%-3ld S=%-5ld H=%-3ld G=%-3ld d=%-4ld %-5s forward %7.1f GFLOP/s %8.2f ms   backward %7.1f GFLOP/s %8.2f ms\n",
      static_cast<long>(shape.sequences), static_cast<long>(shape.positions), static_cast<long>(shape.heads),
      static_cast<long>(shape.kv_heads), static_cast<long>(shape.head_dim), type, operations / forward * 1e-9,
      forward * 1e3, 2.5 * operations / backward * 1e-9, backward * 1e3);
}

}  // namespace

// attention [threads]
int main(int count, char** arguments) {
  context<cpu> ctx(context_options{.threads = count > 1 ? std::atoi(arguments[1]) : 0});
  std::printf("%s, %d threads\n", ctx.device_name().c_str(), ctx.threads());
  for (const attention_shape& shape : {attention_shape{16, 256, 4, 4, 48}, attention_shape{16, 256, 4, 2, 64},
                                       attention_shape{4, 1024, 8, 2, 64}, attention_shape{2, 2048, 8, 2, 128}}) {
    measure<float>(ctx, shape, "fp32");
    measure<bfloat16>(ctx, shape, "bf16");
  }
}
