// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Arrays as numpy's .npy files, format 1.0: a header of a multiple of 64 bytes that names type and extents, then the
// elements, little endian.

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace bench {

// T is float or int32. Requires: as many values as the extents say. Errors: the file cannot be written.
template <class T>
requires std::same_as<T, float> || std::same_as<T, std::int32_t>
void write_npy(const std::string& path, const std::vector<T>& values, const std::vector<graft::index_t>& extents) {
  graft::index_t count = 1;
  std::string shape;
  for (const graft::index_t extent : extents) {
    count *= extent;
    shape += std::to_string(extent) + ", ";
  }
  GRAFT_CHECK(count == static_cast<graft::index_t>(values.size()), "write_npy: expected ", count, " values for ", path,
              ", got ", values.size());
  std::string header = std::string("{'descr': '") + (std::same_as<T, float> ? "<f4" : "<i4") +
                       "', 'fortran_order': False, 'shape': (" + shape + "), }";
  constexpr std::size_t before = 10;  // magic, version, length
  header.append(63 - (before + header.size()) % 64, ' ');
  header += '\n';
  std::string start = "\x93NUMPY";
  start += {1, 0, static_cast<char>(header.size() & 255), static_cast<char>(header.size() >> 8)};
  std::FILE* file = std::fopen(path.c_str(), "wb");
  GRAFT_CHECK(file != nullptr, "write_npy: cannot write ", path);
  bool written = std::fwrite(start.data(), 1, start.size(), file) == start.size();
  written = written && std::fwrite(header.data(), 1, header.size(), file) == header.size();
  written = written && std::fwrite(values.data(), sizeof(T), values.size(), file) == values.size();
  written = std::fclose(file) == 0 && written;
  GRAFT_CHECK(written, "write_npy: ", path, " could not be written in full");
}

}  // namespace bench
