// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The parts of gpu_report, each in a .cu file of its name. A part prints a line for each of its shapes and passes; with
// a folder for data it then computes its small shapes and writes their inputs and results there.

#include <string>

#include "floors.hpp"

namespace bench {

struct report_options {
  std::string data;      // folder for the numbers of the small shapes; empty: none are written
  bool small = false;    // measure the small shapes, which says nothing about speed
  double seconds = 0.3;  // to spend on the repetitions of one measurement
  ceilings card{};       // of floors
};

// ceilings: measures them and prints the card.
ceilings measure_ceilings(bool small);
void report_ceilings(const ceilings& measured);

void report_grouped(const report_options& options);
void report_moe(const report_options& options);
void report_attention(const report_options& options);
void report_cross_entropy(const report_options& options);
void report_adamw(const report_options& options);
void report_router(const report_options& options);
void report_permutation(const report_options& options);
void report_steps(const report_options& options);

// Whether every shape of every part so far was measured.
bool& all_succeeded();

}  // namespace bench
