// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The main function of every test program. The exit status is 0 (passed), 1 (failed) or 77, which CTest takes for
// skipped.

#define CATCH_CONFIG_RUNNER
#include "catch.hpp"

#include <iostream>
#include <string>

// Why the tests of this program cannot run here; empty if they can. Programs that need a GPU have one of their own
// (needs_gpu.cpp).
__attribute__((weak)) std::string reason_to_skip() { return {}; }

int main(int argument_count, char** arguments) {
  Catch::Session session;
  if (const int status = session.applyCommandLine(argument_count, arguments); status != 0) return status;

  bool lists = false;
  for (int i = 1; i < argument_count; ++i) lists = lists || std::string(arguments[i]).rfind("--list", 0) == 0;
  // Catch2 2 returns the number of what it lists, which CTest's discovery reads.
  if (lists) return session.run();

  if (const std::string reason = reason_to_skip(); !reason.empty()) {
    std::cout << "skipped: " << reason << '\n';
    return 77;
  }
  // Catch2 returns the number of failures: 77 of them must not read as skipped.
  return session.run() == 0 ? 0 : 1;
}
