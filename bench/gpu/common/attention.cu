// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Causal attention, forward and backward, on packed queries, keys and values.

#include <utility>

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/attention.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/ops/attention.hpp>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

struct attention_memory {
  graft::attention_shape shape;
  on_device<bfloat16> qkv, out, d_qkv, d_out;
  on_device<float> log_sum_exp;

  attention_memory(device_context& context, const graft::attention_shape& s)
      : shape(s),
        qkv(random_buffer<bfloat16>(context, s.tokens() * s.qkv_width(), 1)),
        out(s.tokens() * s.out_width()),
        d_qkv(s.tokens() * s.qkv_width()),
        d_out(random_buffer<bfloat16>(context, s.tokens() * s.out_width(), 2)),
        log_sum_exp(s.tokens() * s.heads) {}

  auto inputs() const { return qkv.view(shape.tokens(), shape.qkv_width()); }
  auto results() const { return out.view(shape.tokens(), shape.out_width()); }
  auto gradient() const { return d_qkv.view(shape.tokens(), shape.qkv_width()); }
  auto upstream() const { return d_out.view(shape.tokens(), shape.out_width()); }
  void forward(device_context& context) const {
    attention_forward(context, results(), log_sum_exp.view(shape.tokens(), shape.heads), inputs(), shape);
  }
  void backward(device_context& context) const {
    attention_backward(context, gradient(), upstream(), results(), log_sum_exp.view(shape.tokens(), shape.heads),
                       inputs(), shape);
  }
};

}  // namespace

void report_attention(const report_options& options) {
  // Where graft is built with cuDNN, its attention too: as if it were a peer.
  const std::pair<graft::attention_method, const char*> methods[] = {
      {graft::attention_method::own, "graft"}, {graft::attention_method::cudnn, "graft by cuDNN"}};
  device_context context;
  stopwatch watch(context, options);
  for (const graft::attention_shape& shape : attention_cases(options.small)) {
    const attention_memory memory(context, shape);
    for (const auto& [method, who] : methods) {
      const auto measure = [&, method = method, who = who] {
        choose_attention(context, method);
        const auto times = watch([](int) {}, [&] { memory.forward(context); }, [&] { memory.backward(context); });
        print_line(timed_line("attention", "forward", attention_json(shape), times[0], attention_forward_work(shape),
                              options.card, who));
        print_line(timed_line("attention", "backward", attention_json(shape), times[1], attention_backward_work(shape),
                              options.card, who));
      };
      attempt("attention", attention_json(shape), measure, who);
    }
  }
  if (options.data.empty()) return;
  int number = 0;
  for (const graft::attention_shape& shape : attention_cases(true)) {
    const attention_memory memory(context, shape);
    const result_files files(context, options.data, "attention", number++);
    files.write_sizes("shape", {shape.sequences, shape.positions, shape.heads, shape.kv_heads, shape.head_dim});
    files.write("qkv", memory.inputs());
    files.write("d_out", memory.upstream());
    for (const auto& [method, who] : methods) {
      const std::string suffix = method == graft::attention_method::own ? "" : ".cudnn";
      const auto compute = [&, method = method] {
        choose_attention(context, method);
        memory.forward(context);
        memory.backward(context);
        files.write("out" + suffix, memory.results());
        files.write("d_qkv" + suffix, memory.gradient());
      };
      attempt("attention", attention_json(shape), compute, who);
    }
  }
}

}  // namespace bench
