// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Grouped products: forward, input gradient, weight gradient in bf16 (as the peers give it) and added to fp32 (as
// training does).

#include <graft/backend/cuda/grouped_gemm.cuh>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

struct grouped_memory {
  on_device<bfloat16> x, w, dy, y, dx, dw;
  on_device<float> dw32;
  on_device<std::int32_t> offsets;

  grouped_memory(device_context& context, const grouped_case& c)
      : x(random_buffer<bfloat16>(context, c.rows * c.depth, 1)),
        w(random_buffer<bfloat16>(context, c.groups * c.columns * c.depth, 2, 0.02)),
        dy(random_buffer<bfloat16>(context, c.rows * c.columns, 3)),
        y(c.rows * c.columns),
        dx(c.rows * c.depth),
        dw(c.groups * c.columns * c.depth),
        dw32(c.groups * c.columns * c.depth),
        offsets(c.groups + 1) {}

  void route(device_context& context, const grouped_case& c, int repetition) const {
    copy_from_host(context, offsets.view(), group_offsets(c.rows, c.groups, c.routing, repetition).data());
  }
  void forward(device_context& context, const grouped_case& c) const {
    grouped_gemm_nt(context, y.view(c.rows, c.columns), x.view(c.rows, c.depth), w.view(c.groups, c.columns, c.depth),
                    offsets.view());
  }
  void input_gradient(device_context& context, const grouped_case& c) const {
    grouped_gemm_nn(context, dx.view(c.rows, c.depth), dy.view(c.rows, c.columns), w.view(c.groups, c.columns, c.depth),
                    offsets.view());
  }
  template <class Out>
  void weight_gradient(device_context& context, const grouped_case& c, const on_device<Out>& out,
                       graft::accumulate mode) const {
    grouped_gemm_tn(context, out.view(c.groups, c.columns, c.depth), dy.view(c.rows, c.columns),
                    x.view(c.rows, c.depth), offsets.view(), mode);
  }
};

}  // namespace

void report_grouped(const report_options& options) {
  device_context context;
  stopwatch watch(context, options);
  for (const grouped_case& c : grouped_cases(options.small)) {
    attempt("grouped", c.json(), [&] {
      const grouped_memory memory(context, c);
      const auto times = watch([&](int repetition) { memory.route(context, c, repetition); },
                               [&] { memory.forward(context, c); }, [&] { memory.input_gradient(context, c); },
                               [&] { memory.weight_gradient(context, c, memory.dw, graft::accumulate::no); },
                               [&] { memory.weight_gradient(context, c, memory.dw32, graft::accumulate::yes); });
      const auto offsets = group_offsets(c.rows, c.groups, c.routing, 0);
      double used = 0;
      for (std::size_t e = 1; e < offsets.size(); ++e) used += offsets[e] > offsets[e - 1] ? 1 : 0;
      const double m = static_cast<double>(c.rows), n = static_cast<double>(c.columns),
                   k = static_cast<double>(c.depth), e = static_cast<double>(c.groups);
      const auto print = [&](const char* name, double ms, const work& w) {
        print_line(timed_line("grouped", name, c.json(), ms, w, options.card));
      };
      print("forward", times[0], grouped_forward_work(m, n, k, used));
      print("input gradient", times[1], grouped_input_gradient_work(m, n, k, used));
      print("weight gradient", times[2], grouped_weight_gradient_work(m, n, k, e, 2, false));
      print("weight gradient, added to fp32", times[3], grouped_weight_gradient_work(m, n, k, e, 4, true));
    });
  }
  if (options.data.empty()) return;
  int number = 0;
  for (const grouped_case& c : grouped_cases(true)) {
    const grouped_memory memory(context, c);
    memory.route(context, c, 1);
    memory.forward(context, c);
    memory.input_gradient(context, c);
    memory.weight_gradient(context, c, memory.dw32, graft::accumulate::no);
    const result_files files(context, options.data, "grouped", number++);
    files.write("x", memory.x.view(c.rows, c.depth));
    files.write("w", memory.w.view(c.groups, c.columns, c.depth));
    files.write("dy", memory.dy.view(c.rows, c.columns));
    files.write("offsets", memory.offsets.view());
    files.write("y", memory.y.view(c.rows, c.columns));
    files.write("dx", memory.dx.view(c.rows, c.depth));
    files.write("dw", memory.dw32.view(c.groups, c.columns, c.depth));
  }
}

}  // namespace bench
