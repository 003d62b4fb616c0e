// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Model directories as arguments of a program: their names, what graft.json says of their origin, and one process at a
// time in each.

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <type_traits>

#include <nlohmann/json.hpp>

#include <graft/core/error.hpp>
#include <graft/io/model_directory.hpp>

namespace examples {

// The last name of a path, with or without a slash after it: "seed" of "models/seed/".
inline std::string folder_name(const std::filesystem::path& folder) {
  const std::filesystem::path whole = std::filesystem::absolute(folder).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

// What graft.json says of a model's origin, or `otherwise` where it says nothing.
// Errors: a value of another type than that of `otherwise`.
template <class T>
T origin_value(const graft::model_info& info, const char* key, T otherwise) {
  if (!info.card || !info.card->provenance.contains(key)) return otherwise;
  try {
    return info.card->provenance[key].get<T>();
  } catch (const nlohmann::json::exception&) {
    graft::detail::raise((info.folder / "graft.json").string(), ": provenance: expected \"", key, "\" to be ",
                         std::is_arithmetic_v<T> ? "a number" : "a text", ", got ", info.card->provenance[key].dump());
  }
}

// Held while a process trains in a folder; it ends with the process, however that ends. Errors: another process has it.
class folder_lock {
 public:
  explicit folder_lock(const std::filesystem::path& folder) {
    std::filesystem::create_directories(folder);
    handle_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    GRAFT_CHECK(handle_ >= 0, folder.string(), ": cannot be opened (", std::strerror(errno), ")");
    // A process that was killed a moment ago may still hold it. A file system without locks has none to wait for.
    for (int attempt = 0; attempt < 40; ++attempt) {
      if (::flock(handle_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    ::close(handle_);
    graft::detail::raise(folder.string(), ": another process is training here; wait for it or stop it");
  }
  ~folder_lock() { ::close(handle_); }
  folder_lock(const folder_lock&) = delete;
  folder_lock& operator=(const folder_lock&) = delete;

 private:
  int handle_ = -1;
};

}  // namespace examples
