// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the tests of files share: a scratch folder, raw bytes, and the sentence of an error.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include <graft/core/error.hpp>

namespace io_test {

// A folder of its own, gone at the end of the test.
class scratch_folder {
 public:
  scratch_folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "graft-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot create " + pattern);
    path_ = pattern;
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() { std::filesystem::remove_all(path_); }

  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  // Names of everything in it, hidden files too, in order.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::filesystem::path path_;
};

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A safetensors file by hand: length, header, data.
inline std::string raw_safetensors(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

// The sentence of the graft::error that f throws; empty when it does not throw.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const graft::error& problem) {
    return problem.what();
  }
  return {};
}

// The first piece that the message lacks, empty when it has all of them. Also wants one line.
inline std::string lacking(const std::string& message, std::initializer_list<std::string> pieces) {
  if (message.empty()) return "(no error was thrown)";
  if (message.find('\n') != std::string::npos) return "(more than one line)";
  for (const std::string& piece : pieces)
    if (message.find(piece) == std::string::npos) return piece;
  return {};
}

}  // namespace io_test

// The expression throws graft::error whose message holds all the pieces.
#define CHECK_ERROR(expression, ...)                                               \
  do {                                                                             \
    const std::string message_ = io_test::message_of([&] { (void)(expression); }); \
    INFO("message: " << message_);                                                 \
    CHECK(io_test::lacking(message_, {__VA_ARGS__}) == "");                        \
  } while (false)
