// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The head and its cross entropy: losses and both gradients, and the workspace that they take.

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/gemm.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/ops/linear_cross_entropy.hpp>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

struct target_element {
  graft::vector_view<std::int32_t, graft::device_space> targets;
  index_t vocabulary;
  GRAFT_HOST_DEVICE void operator()(index_t i) const {
    const graft::random_source random{3, graft::random_stream::data};
    targets[i] = static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(vocabulary), 0, static_cast<std::uint64_t>(i)));
  }
};

struct head_memory {
  on_device<bfloat16> x, head, d_x;
  on_device<float> d_head, losses;
  on_device<std::int32_t> targets;

  head_memory(device_context& context, const cross_entropy_case& c)
      : x(random_buffer<bfloat16>(context, c.tokens * c.width, 1)),
        head(random_buffer<bfloat16>(context, c.vocabulary * c.width, 2, 0.02)),
        d_x(c.tokens * c.width),
        d_head(c.vocabulary * c.width),
        losses(c.tokens),
        targets(c.tokens) {
    launch_elements(context, c.tokens, target_element{targets.view(), c.vocabulary});
  }
  void run(device_context& context, const cross_entropy_case& c) const {
    graft::linear_cross_entropy_backward<device_context, bfloat16>(
        context, losses.view(), d_x.view(c.tokens, c.width), d_head.view(c.vocabulary, c.width),
        x.view(c.tokens, c.width), head.view(c.vocabulary, c.width), targets.view(),
        1.0 / static_cast<double>(c.tokens));
  }
};

}  // namespace

void report_cross_entropy(const report_options& options) {
  for (const cross_entropy_case& c : cross_entropy_cases(options.small)) {
    attempt("cross_entropy", c.json(), [&] {
      device_context context;
      stopwatch watch(context, options);
      const head_memory memory(context, c);
      const double ms = watch([](int) {}, [&] { memory.run(context, c); }).back();
      const work w = cross_entropy_work(static_cast<double>(c.tokens), static_cast<double>(c.width),
                                        static_cast<double>(c.vocabulary));
      json_object line = timed_line("cross_entropy", "loss and gradients", c.json(), ms, w, options.card);
      print_line(line.add("workspace_gb", static_cast<double>(context.workspace().peak_bytes()) * 1e-9));
    });
  }
  if (options.data.empty()) return;
  int number = 0;
  for (const cross_entropy_case& c : cross_entropy_cases(true)) {
    device_context context;
    const head_memory memory(context, c);
    memory.run(context, c);
    const result_files files(context, options.data, "cross_entropy", number++);
    files.write("x", memory.x.view(c.tokens, c.width));
    files.write("head", memory.head.view(c.vocabulary, c.width));
    files.write("targets", memory.targets.view());
    files.write("losses", memory.losses.view());
    files.write("d_x", memory.d_x.view(c.tokens, c.width));
    files.write("d_head", memory.d_head.view(c.vocabulary, c.width));
  }
}

}  // namespace bench
