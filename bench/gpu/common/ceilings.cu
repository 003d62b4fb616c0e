// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The card, and what it can do a second.

#include <graft/backend/cuda/gemm.cuh>

#include "common/measure.cuh"

namespace bench {

bool& all_succeeded() {
  static bool succeeded = true;
  return succeeded;
}

// A product of n x n x n bf16 numbers, ten times in a row: what a card keeps up.
ceilings measure_ceilings(bool small) {
  device_context context;
  report_options options;
  options.small = small;
  stopwatch watch(context, options);
  ceilings result;
  {
    const index_t count = index_t{1} << (small ? 12 : 28);
    const auto from = random_buffer<float>(context, count, 1);
    const on_device<float> to(count);
    const double ms = watch([](int) {}, [&] { copy(context, to.view(), from.view()); }).back();
    result.bytes = 2e3 * sizeof(float) * static_cast<double>(count) / ms;
  }
  {
    const index_t n = small ? 64 : 8192;
    const auto x = random_buffer<bfloat16>(context, n * n, 1), w = random_buffer<bfloat16>(context, n * n, 2);
    const on_device<bfloat16> y(n * n);
    constexpr int repeats = 10;
    const double ms = watch([](int) {},
                            [&] {
                              for (int i = 0; i < repeats; ++i)
                                gemm_nt(context, y.view(n, n), x.view(n, n), w.view(n, n), graft::accumulate::no);
                            })
                          .back();
    result.flops = repeats * 2e3 * std::pow(static_cast<double>(n), 3) / ms;
  }
  return result;
}

void report_ceilings(const ceilings& measured) {
  device_context context;
  std::size_t available = 0, total = 0;
  int driver = 0, runtime = 0;
  GRAFT_CUDA(cudaMemGetInfo(&available, &total));
  GRAFT_CUDA(cudaDriverGetVersion(&driver));
  GRAFT_CUDA(cudaRuntimeGetVersion(&runtime));
  const auto version = [](int number) {
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
  };
  print_line(json_object()
                 .add("part", "ceilings")
                 .add("name", "card")
                 .add("card", context.device_name())
                 .add("multiprocessors", context.multiprocessors())
                 .add("gib", static_cast<double>(total >> 20) / 1024)
                 .add("driver_cuda", version(driver))
                 .add("runtime_cuda", version(runtime)));
  print_line(json_object().add("part", "ceilings").add("name", "copy of 1 GiB").add("gbytes", measured.bytes * 1e-9));
  print_line(
      json_object().add("part", "ceilings").add("name", "product 8192^3 bf16").add("tflops", measured.flops * 1e-12));
}

}  // namespace bench
