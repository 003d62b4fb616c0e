// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Writing a token file as a stream. It appears under its name when it is complete and not before.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/atomic_file.hpp>
#include <graft/io/token_file.hpp>

namespace graft {

// What the header of a token file says. The counts stand before the tokens, so they are told in advance.
struct token_file_contents {
  index_t count = 0;
  index_t vocabulary = 0;         // every token is below it; up to 65536 a token takes two bytes, else four
  std::int32_t end_of_text = -1;  // the id that ends a document, -1 for none
  index_t text_bytes = -1;        // bytes of text that the tokens stand for, -1 when unknown
};

// Appends tokens to a new .bin file. finish() completes it; without it, nothing is left on the disk.
// Cost: a buffer of 256 KiB.
// Errors: those of atomic_file; a token outside [0, vocabulary); at finish, another number of tokens than was told.
class token_file_writer {
 public:
  token_file_writer(const std::filesystem::path& path, const token_file_contents& contents)
      : file_(path), contents_(contents) {
    GRAFT_CHECK(contents.vocabulary > 0 && contents.vocabulary <= (index_t{1} << 31), path.string(),
                ": expected a vocabulary from 1 to 2^31, got ", contents.vocabulary);
    token_file_header header;
    header.token_bytes = contents.vocabulary <= 65536 ? 2 : 4;
    header.count = static_cast<std::uint64_t>(contents.count);
    header.vocabulary = static_cast<std::uint32_t>(contents.vocabulary);
    if (contents.text_bytes >= 0) header.text_bytes = static_cast<std::uint64_t>(contents.text_bytes);
    if (contents.end_of_text >= 0) header.end_of_text = static_cast<std::uint32_t>(contents.end_of_text);
    token_bytes_ = header.token_bytes;
    buffer_.reserve(buffer_bytes);
    const char* const bytes = reinterpret_cast<const char*>(&header);
    buffer_.insert(buffer_.end(), bytes, bytes + sizeof header);
  }

  void append(std::span<const std::int32_t> tokens) {
    for (const std::int32_t token : tokens) {
      GRAFT_CHECK(token >= 0 && token < contents_.vocabulary, file_.target().string(), ": expected tokens from 0 to ",
                  contents_.vocabulary - 1, ", got ", token, " at position ", appended_);
      if (buffer_.size() + 4 > buffer_bytes) flush();
      const char* const bytes = reinterpret_cast<const char*>(&token);  // little-endian: the low bytes come first
      buffer_.insert(buffer_.end(), bytes, bytes + token_bytes_);
      ++appended_;
    }
  }

  void finish() {
    GRAFT_CHECK(appended_ == contents_.count, file_.target().string(), ": expected ", contents_.count, " tokens, got ",
                appended_, " (did the source change while it was read?)");
    flush();
    file_.commit();
  }

 private:
  static constexpr std::size_t buffer_bytes = 1 << 18;

  void flush() {
    file_.write(std::string_view(buffer_.data(), buffer_.size()));
    buffer_.clear();
  }

  atomic_file file_;
  token_file_contents contents_;
  std::size_t token_bytes_ = 2;
  index_t appended_ = 0;
  std::vector<char> buffer_;
};

}  // namespace graft
