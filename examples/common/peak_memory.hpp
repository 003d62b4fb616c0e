// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How much memory a stage of a program took at its peak.

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <string>

#include <graft/core/host_device.hpp>

namespace examples {

// The peak of this process's resident memory since the object was made, in bytes: VmHWM of /proc/self/status, which the
// kernel starts again at what is resident when 5 is written to /proc/self/clear_refs. Everything that is resident
// counts: code, token files that are mapped, memory that the C library keeps. 0 where the system has no such numbers.
// Device memory is not in it.
class peak_memory {
 public:
  peak_memory() {
    earlier() = of_process();
    malloc_trim(0);  // what stages before have given back
    std::ofstream clear("/proc/self/clear_refs");
    clear << 5 << std::flush;
    counts_ = clear.good();
  }

  graft::index_t bytes() const { return counts_ ? high_water() : 0; }

  // Since the process began, whatever was started again between.
  static graft::index_t of_process() { return std::max(earlier(), high_water()); }

 private:
  static graft::index_t high_water() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;  // in kB
    return 0;
  }
  // The peak before the object of this type that was made last.
  static graft::index_t& earlier() {
    static graft::index_t bytes = 0;
    return bytes;
  }

  bool counts_ = false;
};

}  // namespace examples
