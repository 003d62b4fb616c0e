// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Files that appear whole or not at all: written beside their target under another name, synced, then renamed.
// Everything that graft writes and reads again goes through here. A reader that has the old file open or mapped
// keeps the old contents.

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <graft/core/error.hpp>

namespace graft {

namespace detail {

// Makes a rename in the folder last through a power cut. File systems that cannot sync a folder are left alone.
inline void sync_folder(const std::filesystem::path& folder) {
  const int handle = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) return;
  ::fsync(handle);
  ::close(handle);
}

}  // namespace detail

// The temporary name is ".NAME.partial" in the target's folder: one per target, so that what a killed process left
// behind is overwritten by the next attempt instead of piling up. A lock on it keeps two writers apart.
// Errors: graft::error with the path and the system's reason (disk full among them). Unless commit() returned,
// the target is untouched and the destructor removes the temporary. A process that sets RLIMIT_FSIZE must ignore
// SIGXFSZ to see the limit as an error.
// Cost: each write is a system call. Write large pieces.
class atomic_file {
 public:
  explicit atomic_file(std::filesystem::path target) : target_(std::move(target)) {
    GRAFT_CHECK(target_.has_filename(), "atomic_file: expected the name of a file, got '", target_.string(), "'");
    // Renaming onto a device or a folder would destroy it or fail at the very end.
    std::error_code ignored;
    const auto status = std::filesystem::status(target_, ignored);
    GRAFT_CHECK(!std::filesystem::exists(status) || std::filesystem::is_regular_file(status), target_.string(),
                ": cannot write, expected a regular file or nothing at this path, got ",
                std::filesystem::is_directory(status) ? "a folder" : "something else");
    temporary_ = target_.parent_path() / ("." + target_.filename().string() + ".partial");
    open_temporary();
  }
  atomic_file(const atomic_file&) = delete;
  atomic_file& operator=(const atomic_file&) = delete;
  ~atomic_file() {
    if (handle_ < 0) return;
    // Removed before the lock goes with the handle: afterwards the name may be another writer's.
    ::unlink(temporary_.c_str());
    ::close(handle_);
  }

  const std::filesystem::path& target() const { return target_; }
  std::size_t bytes_written() const { return bytes_written_; }

  void write(std::span<const std::byte> bytes) {
    GRAFT_CHECK(handle_ >= 0 && !synced_, target_.string(), ": cannot write after finish()");
    while (!bytes.empty()) {
      const ssize_t count = ::write(handle_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) fail("cannot write", count < 0 ? errno : EIO);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      bytes_written_ += static_cast<std::size_t>(count);
    }
  }
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }

  // Brings the contents to the disk. After this only the rename can fail.
  void finish() {
    if (synced_) return;
    GRAFT_CHECK(handle_ >= 0, target_.string(), ": cannot finish, already committed");
    // EINVAL: the file system has no sync, and reported every error at write.
    if (::fsync(handle_) != 0 && errno != EINVAL) fail("cannot write", errno);
    synced_ = true;
  }

  // The target holds the new contents when this returns.
  void commit() {
    finish();
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot replace", errno);
    const int handle = handle_;
    handle_ = -1;
    ::close(handle);
    detail::sync_folder(target_.parent_path());
  }

 private:
  [[noreturn]] void fail(const char* action, int problem) const {
    detail::raise(target_.string(), ": ", action, " (", std::strerror(problem), ")");
  }

  void open_temporary() {
    // Another writer may rename the file between our open and our lock. Then we hold its target, and try again.
    for (int attempt = 0; attempt < 100; ++attempt) {
      handle_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
      if (handle_ < 0) fail("cannot create", errno);
      int problem = 0;
      if (::flock(handle_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) problem = errno;
      struct stat mine {
      }, named{};
      const bool same = ::fstat(handle_, &mine) == 0 && ::lstat(temporary_.c_str(), &named) == 0 &&
                        mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
      if (problem == 0 && same) {
        if (::ftruncate(handle_, 0) == 0) return;
        problem = errno;
      }
      ::close(handle_);
      handle_ = -1;
      GRAFT_CHECK(problem != EWOULDBLOCK, target_.string(), ": cannot write, another process is writing this file");
      if (problem != 0) fail("cannot create", problem);
    }
    detail::raise(target_.string(), ": cannot write, other processes keep replacing this file");
  }

  std::filesystem::path target_, temporary_;
  int handle_ = -1;
  bool synced_ = false;
  std::size_t bytes_written_ = 0;
};

// The whole of a small file at once.
inline void write_file(const std::filesystem::path& path, std::string_view contents) {
  atomic_file file(path);
  file.write(contents);
  file.commit();
}

}  // namespace graft
