// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the tests of text share: gzip files, text that differs from document to document.

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include <graft/core/philox.hpp>

#include "io/io_test.hpp"

namespace io_test {

// bytes as one gzip member, appended to path.
inline void append_gzip(const std::filesystem::path& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "ab1");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

// About `bytes` bytes of lines with a blank line every tenth, no two texts of different numbers alike.
inline std::string some_text(std::uint64_t number, std::size_t bytes) {
  const graft::random_source random{number};
  std::string text;
  for (std::uint64_t line = 0; text.size() < bytes; ++line)
    text += "text " + std::to_string(number) + " says " + std::to_string(random.words(1, line).word[0]) +
            (line % 10 == 9 ? ".\n\n" : " and goes on\n");
  return text;
}

}  // namespace io_test
