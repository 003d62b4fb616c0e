// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The card, its ceilings as measured now, and training steps beside them:
//
//   gpu_report [ceilings | steps]      both without an argument
//
// A step's floor is the time that its floating-point operations take at the measured rate of a large product; score =
// floor / measured.

#include <cstdio>
#include <exception>
#include <string>

#include "gpu_report.hpp"

namespace {

void print_steps(const char* name, const bench::step_rate& rate, double ceiling) {
  const double floor = rate.flops / ceiling;
  std::printf("%-24s %8.1f ms  %9.0f tokens/s  %6.1f TFLOP/s  floor %6.1f ms  score %.3f\n", name, rate.seconds * 1e3,
              rate.tokens / rate.seconds, rate.flops / rate.seconds * 1e-12, floor * 1e3, floor / rate.seconds);
  std::printf("%-24s %.0f M parameters, %.0f tokens a step, workspace %.2f GB, loss %.4f, %s\n", "",
              rate.parameters * 1e-6, rate.tokens, rate.peak_bytes * 1e-9, rate.loss,
              rate.steady ? "no memory asked for after the first step" : "MEMORY WAS ASKED FOR AFTER THE FIRST STEP");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string part = argc > 1 ? argv[1] : "";
  if (argc > 2 || (!part.empty() && part != "ceilings" && part != "steps")) {
    std::fprintf(stderr, "gpu_report: expected ceilings, steps or nothing, got %s\n", part.c_str());
    return 1;
  }
  try {
    std::printf("card                     %s\n", bench::card().c_str());
    const double ceiling = bench::product_rate(8192);
    std::printf("product 8192^3 bf16      %8.1f TFLOP/s\n", ceiling * 1e-12);
    if (part != "steps")
      std::printf("copy of 1 GiB            %8.1f GB/s read and written\n", bench::copy_bandwidth() * 1e-9);
    std::fflush(stdout);
    if (part == "ceilings") return 0;
    print_steps("dense, 124M size", bench::dense_steps(), ceiling);
    print_steps("mixture, 2 of 8 experts", bench::mixture_steps(), ceiling);
  } catch (const std::exception& problem) {
    std::fflush(stdout);
    std::fprintf(stderr, "gpu_report: %s\n", problem.what());
    return 1;
  }
  return 0;
}
