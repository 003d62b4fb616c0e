// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What gpu_report measures. Defined in gpu_report.cu.

#include <string>

namespace bench {

std::string card();          // name, memory, driver and CUDA versions; throws where there is no device
double copy_bandwidth();     // bytes read and written a second, copying 1 GiB within the device
double product_rate(int n);  // floating-point operations a second of an n x n x n bf16 product of random numbers

// Training steps (forward, backward, AdamW) on random tokens.
struct step_rate {
  double seconds = 0;            // of one step, the median
  double tokens = 0, flops = 0;  // of one step
  double parameters = 0;
  double peak_bytes = 0;  // of the workspace
  double loss = 0;        // of the last step
  bool steady = false;    // no memory was asked for after the first step
};
step_rate dense_steps();    // the size of GPT-2 124M, in Llama's form
step_rate mixture_steps();  // 8 experts, 2 a token

}  // namespace bench
