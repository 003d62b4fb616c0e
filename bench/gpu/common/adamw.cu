// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// AdamW over one arena: norm of the gradient, clipping, update, bf16 copy, zeros in place of the gradient.

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/train/adamw.hpp>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

struct adamw_memory {
  on_device<float> master, gradients;
  on_device<bfloat16> narrow;
  graft::adamw<numbers> optimizer;

  adamw_memory(device_context& context, const adamw_case& c)
      : master(random_buffer<float>(context, c.parameters, 1, 0.02)),
        gradients(random_buffer<float>(context, c.parameters, 2, 1e-3)),
        narrow(c.parameters),
        optimizer(context, layout(c), {true}, {}) {}

  static graft::parameter_layout layout(const adamw_case& c) {
    graft::tensor_entry entry;
    entry.name = "all";
    entry.rows = c.parameters;
    graft::parameter_layout result;
    result.tensors = {entry};
    result.size = c.parameters;
    return result;
  }
  // Clears the gradients.
  void update(device_context& context, int step) {
    optimizer.update(context, master.view(), narrow.view(), gradients.view(), 1e-3, step);
  }
};

}  // namespace

void report_adamw(const report_options& options) {
  for (const adamw_case& c : adamw_cases(options.small)) {
    attempt("adamw", c.json(), [&] {
      device_context context;
      stopwatch watch(context, options);
      adamw_memory memory(context, c);
      int step = 0;
      const double ms =
          watch(
              [&](int repetition) {
                step = repetition;
                fill_random(context, memory.gradients.view(), static_cast<std::uint64_t>(repetition), 1e-3);
              },
              [&] { memory.update(context, step); })
              .back();
      print_line(
          timed_line("adamw", "update", c.json(), ms, adamw_work(static_cast<double>(c.parameters)), options.card));
    });
  }
  if (options.data.empty()) return;
  int number = 0;
  for (const adamw_case& c : adamw_cases(true)) {
    device_context context;
    adamw_memory memory(context, c);
    const result_files files(context, options.data, "adamw", number++);
    files.write("before", memory.master.view());
    for (int step = 0; step < 3; ++step) {
      const auto seed = static_cast<std::uint64_t>(step) + 20;
      fill_random(context, memory.gradients.view(), seed, step == 0 ? 1.0 : 1e-3);  // the first is clipped
      files.write("gradient" + std::to_string(step), memory.gradients.view());
      memory.update(context, step);
    }
    files.write("after", memory.master.view());
    files.write("narrow", memory.narrow.view());
  }
}

}  // namespace bench
