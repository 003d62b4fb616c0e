// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The CPU's context: a number of threads and a workspace.

#include <concepts>
#include <fstream>
#include <string>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/buffer.hpp>

namespace graft {

template <>
class context<cpu> {
 public:
  using backend = cpu;
  using space = host_space;

  // Errors: a negative number of threads; threads above 1 in a build without OpenMP.
  explicit context(const context_options& options = {}) : threads_(options.threads) {
    GRAFT_CHECK(options.threads >= 0, "context: expected threads of at least 0 (0: all), got ", options.threads);
#if defined(_OPENMP)
    if (threads_ == 0) threads_ = omp_get_max_threads();
#else
    GRAFT_CHECK(options.threads <= 1, "context: expected one thread in a build without OpenMP, got ", options.threads);
    threads_ = 1;
#endif
  }
  context(const context&) = delete;
  context& operator=(const context&) = delete;

  memory_arena<host_memory>& workspace() { return workspace_; }
  void synchronize() {}
  int threads() const { return threads_; }

  // The processor as the system names it.
  std::string device_name() const {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
      const auto colon = line.find(": ");
      if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
    }
    return "cpu";
  }

  // Uninitialised workspace, 64-byte aligned, until the enclosing workspace_scope ends.
  template <class T, std::integral... Extents>
  auto allocate(Extents... extents) {
    return workspace_.template allocate_view<T, space>(extents...);
  }

 private:
  int threads_;
  memory_arena<host_memory> workspace_;
};

}  // namespace graft
