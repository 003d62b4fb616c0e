// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A file's bytes, mapped read-only. Replacing the file by rename (as graft's writers do) leaves a mapping intact;
// truncating it in place does not.

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <graft/core/error.hpp>

namespace graft {

// Errors: graft::error naming the path when it is missing, unreadable or no regular file.
class mapped_file {
 public:
  mapped_file() = default;
  explicit mapped_file(const std::filesystem::path& path) : path_(path) {
    // O_NONBLOCK: opening a FIFO must end in the sentence below, not wait for a writer.
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    GRAFT_CHECK(file >= 0, path_.string(), ": cannot open (", std::strerror(errno), ")");
    struct stat status {};
    const bool known = ::fstat(file, &status) == 0;
    if (!known || !S_ISREG(status.st_mode)) {
      ::close(file);
      detail::raise(path_.string(), ": expected a regular file, got ",
                    known && S_ISDIR(status.st_mode) ? "a folder" : "something else");
    }
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ > 0) {
      void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
      const int problem = errno;
      ::close(file);
      GRAFT_CHECK(address != MAP_FAILED, path_.string(), ": cannot map ", size_, " bytes (", std::strerror(problem),
                  ")");
      data_ = static_cast<const std::byte*>(address);
    } else {
      ::close(file);
    }
  }
  mapped_file(mapped_file&& other) noexcept
      : path_(std::move(other.path_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~mapped_file() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace graft
