// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading text files, gzip or plain, a piece at a time; and telling text from what is not text.

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include <graft/core/error.hpp>
#include <graft/core/hash.hpp>

namespace graft {

// A file as a stream of bytes. Whether it is gzip is told by its first two bytes, not by its name; members that
// follow one another are one stream.
// Cost: about 200 KiB of memory, whatever the size of the file.
// Errors: a file that cannot be opened or read, or gzip that is damaged or ends too early, with the path.
class text_reader {
 public:
  explicit text_reader(const std::filesystem::path& path) : path_(path.string()) {
    errno = 0;
    file_.reset(gzopen(path_.c_str(), "rbe"));
    GRAFT_CHECK(file_, path_, ": cannot be opened for reading (", errno ? std::strerror(errno) : "out of memory", ")");
    gzbuffer(file_.get(), 1u << 16);
  }

  // Fills out with the next bytes. Less than size only at the end of the file.
  std::size_t read(char* out, std::size_t size) {
    std::size_t total = 0;
    while (total < size) {
      const auto piece = static_cast<unsigned>(std::min<std::size_t>(size - total, 1u << 30));
      errno = 0;
      const int count = gzread(file_.get(), out + total, piece);
      const int saved_errno = errno;
      int code = Z_OK;
      const char* const message = gzerror(file_.get(), &code);
      GRAFT_CHECK(code != Z_BUF_ERROR, path_, ": the gzip data ends too early (truncated?)");
      GRAFT_CHECK(code != Z_ERRNO, path_, ": reading failed (", std::strerror(saved_errno), ")");
      GRAFT_CHECK(count >= 0 && (code == Z_OK || code == Z_STREAM_END), path_, ": the gzip data is damaged (", message,
                  ")");
      if (count == 0) break;
      total += static_cast<std::size_t>(count);
    }
    return total;
  }

 private:
  struct closer {
    void operator()(gzFile_s* file) const { gzclose(file); }
  };
  std::string path_;
  std::unique_ptr<gzFile_s, closer> file_;
};

namespace detail {

// The length of the UTF-8 sequence that text starts with, or 0 when it starts with none. Overlong forms, surrogates
// and code points above U+10FFFF are none. Requires: text is not empty.
inline std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xC2 && first < 0xE0   ? 2
                             : first >= 0xE0 && first < 0xF0 ? 3
                             : first >= 0xF0 && first < 0xF5 ? 4
                                                             : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) >= 0xA0) || (first == 0xF0 && byte(1) < 0x90) ||
      (first == 0xF4 && byte(1) >= 0x90))
    return 0;
  return length;
}

// Bytes of text that belong to no UTF-8 sequence.
inline std::size_t invalid_utf8_bytes(std::string_view text) {
  std::size_t invalid = 0;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    invalid += length == 0;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return invalid;
}

// Appends a code point as UTF-8.
inline void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6)), put(0x80 | (code & 63));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12)), put(0x80 | ((code >> 6) & 63)), put(0x80 | (code & 63));
  } else {
    put(0xF0 | (code >> 18)), put(0x80 | ((code >> 12) & 63)), put(0x80 | ((code >> 6) & 63)), put(0x80 | (code & 63));
  }
}

// 64 bits of a text's content: FNV-1a, then MurmurHash3's finaliser, so that the high bits are good too.
class content_hash {
 public:
  content_hash& add(std::string_view bytes) {
    state_ = fnv1a(bytes, state_);
    return *this;
  }
  content_hash& add_number(std::uint64_t number) {
    for (int shift = 0; shift < 64; shift += 8) state_ = (state_ ^ ((number >> shift) & 0xff)) * 0x100000001b3u;
    return *this;
  }
  std::uint64_t value() const {
    std::uint64_t h = state_;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
  }

 private:
  std::uint64_t state_ = fnv1a_start;
};

}  // namespace detail

// The first bytes of a file that decide whether it is text.
inline constexpr std::size_t text_probe_bytes = 8192;

// Whether a file with these first bytes counts as text: no NUL byte, and at most one byte in ten outside valid
// UTF-8 (a text in Latin-1 passes, compressed or compiled data does not).
inline bool looks_like_text(std::string_view head) {
  if (head.find('\0') != std::string_view::npos) return false;
  // A sequence that the end of the probe cuts is no fault of the text.
  for (std::size_t cut = 0; cut < 3 && !head.empty() && (static_cast<unsigned char>(head.back()) & 0x80) != 0; ++cut)
    head.remove_suffix(1);
  return detail::invalid_utf8_bytes(head) * 10 <= head.size();
}

}  // namespace graft
