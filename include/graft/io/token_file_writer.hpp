// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Writing a token file as a stream: under another name beside its place, and renamed when it is complete, so
// that no reader ever sees half a file.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/token_file.hpp>

namespace graft {

namespace detail {

// A file that appears under its name when commit() is called, and leaves nothing behind when it is not.
class pending_file {
 public:
  explicit pending_file(const std::filesystem::path& path)
      : path_(path.string()), temporary_(path_ + ".part-" + std::to_string(::getpid())) {
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    GRAFT_CHECK(descriptor_ >= 0, temporary_, ": cannot be opened for writing (", std::strerror(errno), ")");
  }
  pending_file(const pending_file&) = delete;
  pending_file& operator=(const pending_file&) = delete;
  ~pending_file() {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }

  void write(const void* data, std::size_t size, index_t offset) {
    const char* bytes = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t count = ::pwrite(descriptor_, bytes, size, offset);
      if (count < 0 && errno == EINTR) continue;
      GRAFT_CHECK(count > 0, path_, ": writing failed at byte ", offset, " (", std::strerror(count < 0 ? errno : ENOSPC), ")");
      bytes += count;
      size -= static_cast<std::size_t>(count);
      offset += count;
    }
  }

  void commit() {
    GRAFT_CHECK(::fsync(descriptor_) == 0, path_, ": writing failed (", std::strerror(errno), ")");
    GRAFT_CHECK(::rename(temporary_.c_str(), path_.c_str()) == 0, path_, ": renaming failed (", std::strerror(errno), ")");
    ::close(std::exchange(descriptor_, -1));
  }

 private:
  std::string path_, temporary_;
  int descriptor_ = -1;
};

}  // namespace detail

// Appends tokens to a new .bin file. finish() completes it; without it, nothing is left on the disk.
// Errors: a full disk, or a token outside [0, vocabulary), with the path.
class token_file_writer {
 public:
  // Two bytes a token where the vocabulary allows it. end_of_text: the id that ends a document, -1 for none.
  token_file_writer(const std::filesystem::path& path, index_t vocabulary, std::int32_t end_of_text = -1)
      : path_(path.string()), file_(path), vocabulary_(vocabulary) {
    GRAFT_CHECK(vocabulary > 0 && vocabulary <= (index_t{1} << 31), "token_file_writer: expected a vocabulary from 1 to 2^31, got ",
                vocabulary);
    header_.token_bytes = vocabulary <= 65536 ? 2 : 4;
    header_.vocabulary = static_cast<std::uint32_t>(vocabulary);
    if (end_of_text >= 0) header_.end_of_text = static_cast<std::uint32_t>(end_of_text);
    buffer_.reserve(buffer_bytes);
  }

  void append(std::span<const std::int32_t> tokens) {
    for (const std::int32_t token : tokens) {
      GRAFT_CHECK(token >= 0 && token < vocabulary_, path_, ": expected tokens from 0 to ", vocabulary_ - 1, ", got ", token);
      const char* const bytes = reinterpret_cast<const char*>(&token);
      buffer_.insert(buffer_.end(), bytes, bytes + header_.token_bytes);
      ++header_.count;
      if (buffer_.size() + 4 > buffer_bytes) flush();
    }
  }

  index_t size() const { return static_cast<index_t>(header_.count); }

  // text_bytes: bytes of text that the tokens stand for, -1 when unknown.
  void finish(index_t text_bytes = -1) {
    flush();
    if (text_bytes >= 0) header_.text_bytes = static_cast<std::uint64_t>(text_bytes);
    file_.write(&header_, sizeof header_, 0);
    file_.commit();
  }

 private:
  static constexpr std::size_t buffer_bytes = 1 << 18;

  void flush() {
    file_.write(buffer_.data(), buffer_.size(), offset_);
    offset_ += static_cast<index_t>(buffer_.size());
    buffer_.clear();
  }

  std::string path_;
  detail::pending_file file_;
  token_file_header header_;
  index_t vocabulary_;
  index_t offset_ = sizeof(token_file_header);
  std::vector<char> buffer_;
};

}  // namespace graft
