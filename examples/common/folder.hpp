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
#include <utility>

#include <nlohmann/json.hpp>

#include <graft/core/error.hpp>
#include <graft/io/assembly.hpp>

namespace examples {

// The last name of a path, with or without a slash after it: "seed" of "models/seed/".
std::string folder_name(const std::filesystem::path& folder);

// Whether there is a whole model at this place, one of its own or one that is put together of others.
bool holds_model(const std::filesystem::path& folder);

// What graft.json says of the origin of either, nothing where there is none.
nlohmann::json origin_of(const graft::model_info& info);
nlohmann::json origin_of(const std::filesystem::path& folder);

// The tokenizer of either, and how many positions it is meant for: of an assembly those that every member is.
graft::tokenizer_card tokenizer_of(const std::filesystem::path& folder);
graft::index_t positions_of(const std::filesystem::path& folder);

// A value of an origin, or `otherwise` where it says nothing. place: the folder.
// Errors: a value of another type than that of `otherwise`.
template <class T>
T origin_value(const nlohmann::json& origin, const std::filesystem::path& place, const char* key, T otherwise) {
  if (!origin.contains(key)) return otherwise;
  try {
    return origin[key].template get<T>();
  } catch (const nlohmann::json::exception&) {
    graft::detail::raise((place / "graft.json").string(), ": provenance: expected \"", key, "\" to be ",
                         std::is_arithmetic_v<T> ? "a number" : "a text", ", got ", origin[key].dump());
  }
}
template <class T>
T origin_value(const graft::model_info& info, const char* key, T otherwise) {
  return origin_value(origin_of(info), info.folder, key, std::move(otherwise));
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
