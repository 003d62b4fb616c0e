// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A folder whose files change together: all are written beside their targets first, then renamed. One of them, the
// seal, is removed before the first rename and comes back with the last, so that a folder that has its seal is
// complete, whenever the process was killed.

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/atomic_file.hpp>

namespace graft {

// Makes the folder (and its parents) when missing; they go again when nothing was committed.
// Errors: graft::error with the path and the reason. Before commit() nothing in the folder has changed.
class atomic_folder {
 public:
  atomic_folder(std::filesystem::path folder, std::string seal) : folder_(std::move(folder)), seal_(std::move(seal)) {
    std::vector<std::filesystem::path> missing;
    std::error_code problem;
    for (auto path = std::filesystem::absolute(folder_).lexically_normal(); !std::filesystem::exists(path, problem);) {
      if (path.has_filename()) missing.push_back(path);
      if (path == path.parent_path()) break;
      path = path.parent_path();
    }
    std::filesystem::create_directories(folder_, problem);
    GRAFT_CHECK(std::filesystem::is_directory(folder_), folder_.string(), ": cannot create this folder (",
                problem ? problem.message() : std::string("a file of this name exists"), ")");
    created_ = std::move(missing);
  }
  atomic_folder(const atomic_folder&) = delete;
  atomic_folder& operator=(const atomic_folder&) = delete;
  ~atomic_folder() {
    files_.clear();
    if (committed_) return;
    std::error_code ignored;  // a folder that others use meanwhile stays
    for (const auto& path : created_) std::filesystem::remove(path, ignored);
  }

  const std::filesystem::path& path() const { return folder_; }

  // A file of the folder, to be written now. Renamed in the order of these calls, the seal last.
  atomic_file& add(const std::string& name) {
    files_.push_back(std::make_unique<atomic_file>(folder_ / name));
    return *files_.back();
  }
  void add(const std::string& name, std::string_view contents) { add(name).write(contents); }

  // A file that must be gone when the folder is sealed again. Nothing happens where there is none.
  void retire(const std::string& name) { retired_.push_back(name); }

  void commit() {
    for (const auto& file : files_) file->finish();
    remove(seal_);
    for (const std::string& name : retired_) remove(name);
    std::stable_sort(files_.begin(), files_.end(),
                     [&](const auto& a, const auto& b) { return !is_seal(*a) && is_seal(*b); });
    for (const auto& file : files_) {
      committed_ = true;
      file->commit();
    }
  }

 private:
  bool is_seal(const atomic_file& file) const { return file.target().filename() == seal_; }
  void remove(const std::string& name) {
    std::error_code problem;
    std::filesystem::remove(folder_ / name, problem);
    GRAFT_CHECK(!problem, (folder_ / name).string(), ": cannot remove (", problem.message(), ")");
  }

  std::filesystem::path folder_;
  std::string seal_;
  std::vector<std::filesystem::path> created_;
  std::vector<std::unique_ptr<atomic_file>> files_;
  std::vector<std::string> retired_;
  bool committed_ = false;
};

}  // namespace graft
