// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Token files: graft's own .bin and one-dimensional NumPy .npy, read at random places with pread. Nothing is
// mapped or kept, so a file of any size costs no memory.
//
// A .bin file is a header of 64 bytes and then `count` tokens, all little-endian:
//
//   offset  bytes  field
//        0      8  magic "GRAFTTOK"
//        8      4  version, 1
//       12      4  bytes a token: 2 (uint16) or 4 (uint32)
//       16      8  count, the number of tokens
//       24      8  bytes of text that the tokens stand for, 2^64-1 when unknown
//       32      4  vocabulary: every token is below it
//       36      4  the id that ends a document, 2^32-1 when there is none
//       40     24  zero
//
// A .npy file (version 1 to 3) holds one axis of '<u2', '<u4', '<i4' or '<i8'.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

static_assert(std::endian::native == std::endian::little,
              "graft::token_file: this machine is not little-endian. Token files are written for machines that are.");

// The header of a .bin file, byte for byte.
struct token_file_header {
  static constexpr std::uint64_t unknown_bytes = ~std::uint64_t{0};
  static constexpr std::uint32_t no_end_of_text = ~std::uint32_t{0};

  char magic[8] = {'G', 'R', 'A', 'F', 'T', 'T', 'O', 'K'};
  std::uint32_t version = 1;
  std::uint32_t token_bytes = 2;
  std::uint64_t count = 0;
  std::uint64_t text_bytes = unknown_bytes;
  std::uint32_t vocabulary = 0;
  std::uint32_t end_of_text = no_end_of_text;
  char zero[24] = {};
};
static_assert(sizeof(token_file_header) == 64);

// Whether a file that starts with these bytes is, or means to be, a token file.
inline bool is_token_file(std::string_view head) {
  return head.starts_with("GRAFTTOK") || head.starts_with("\x93NUMPY");
}

// An open token file.
// Errors: one sentence with the path for a header that is cut, of another version or element type, that contradicts the
// size of the file, or for a token outside [0, vocabulary) when it is read.
class token_file {
 public:
  // vocabulary: tokens at or above it are refused; 0 takes what a .bin header says and, for .npy, 2^31.
  explicit token_file(const std::filesystem::path& path, index_t vocabulary = 0);
  token_file(token_file&& other) noexcept { *this = std::move(other); }
  token_file& operator=(token_file&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(path_, other.path_);
    std::swap(data_offset_, other.data_offset_);
    std::swap(count_, other.count_);
    std::swap(vocabulary_, other.vocabulary_);
    std::swap(token_bytes_, other.token_bytes_);
    std::swap(is_signed_, other.is_signed_);
    std::swap(text_bytes_, other.text_bytes_);
    std::swap(end_of_text_, other.end_of_text_);
    return *this;
  }
  ~token_file() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

  const std::string& path() const { return path_; }
  index_t size() const { return count_; }
  index_t vocabulary() const { return vocabulary_; }
  // Bytes of text that the tokens stand for, or -1 when the file does not say.
  index_t text_bytes() const { return text_bytes_; }
  // The id that ends a document, or -1 when the file does not say.
  std::int32_t end_of_text() const { return end_of_text_; }

  // Tokens [first, first + out.size()). Safe to call from several threads.
  void read(index_t first, std::span<std::int32_t> out) const;

 private:
  void open_bin(index_t file_size);
  void open_npy(index_t file_size);
  void read_bytes(void* out, std::size_t size, index_t offset) const;

  int descriptor_ = -1;
  std::string path_;
  index_t data_offset_ = 0;
  index_t count_ = 0;
  index_t vocabulary_ = 0;
  int token_bytes_ = 2;
  bool is_signed_ = false;
  index_t text_bytes_ = -1;
  std::int32_t end_of_text_ = -1;
};

inline token_file::token_file(const std::filesystem::path& path, index_t vocabulary) : path_(path.string()) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  GRAFT_CHECK(descriptor_ >= 0, path_, ": cannot be opened for reading (", std::strerror(errno), ")");
  try {
    struct stat status {};
    GRAFT_CHECK(::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode), path_,
                ": expected a token file, found something that is no regular file");
    std::array<char, 8> magic{};
    const index_t file_size = status.st_size;
    GRAFT_CHECK(file_size >= 8, path_, ": expected a token file (.bin or .npy), found ", file_size, " bytes");
    read_bytes(magic.data(), magic.size(), 0);
    const std::string_view head(magic.data(), magic.size());
    GRAFT_CHECK(is_token_file(head), path_,
                ": expected a token file that starts with GRAFTTOK or \\x93NUMPY, found other bytes");
    head.starts_with("GRAFTTOK") ? open_bin(file_size) : open_npy(file_size);
    if (vocabulary > 0) {
      GRAFT_CHECK(vocabulary_ == 0 || vocabulary_ <= vocabulary, path_, ": expected a vocabulary of at most ",
                  vocabulary, ", the header says ", vocabulary_);
      vocabulary_ = vocabulary;
    }
    if (vocabulary_ == 0) vocabulary_ = index_t{1} << 31;
  } catch (...) {
    ::close(std::exchange(descriptor_, -1));
    throw;
  }
}

inline void token_file::open_bin(index_t file_size) {
  token_file_header header;
  GRAFT_CHECK(file_size >= static_cast<index_t>(sizeof header), path_, ": expected a header of ", sizeof header,
              " bytes, the file has ", file_size, " bytes (truncated?)");
  read_bytes(&header, sizeof header, 0);
  GRAFT_CHECK(header.version == 1, path_, ": expected version 1 of the token file format, found version ",
              header.version);
  GRAFT_CHECK(header.token_bytes == 2 || header.token_bytes == 4, path_,
              ": expected 2 or 4 bytes a token, the header says ", header.token_bytes);
  for (const char byte : header.zero)
    GRAFT_CHECK(byte == 0, path_, ": expected zeros in bytes 40 to 63 of the header, found ", static_cast<int>(byte));
  const auto data_bytes = static_cast<std::uint64_t>(file_size) - sizeof header;
  GRAFT_CHECK(header.count == data_bytes / header.token_bytes && data_bytes % header.token_bytes == 0, path_,
              ": the header says ", header.count, " tokens of ", header.token_bytes, " bytes, ", data_bytes,
              " bytes follow it");
  GRAFT_CHECK(header.vocabulary <= (1u << 31), path_, ": expected a vocabulary of at most 2^31, the header says ",
              header.vocabulary);
  data_offset_ = sizeof header;
  count_ = static_cast<index_t>(header.count);
  token_bytes_ = static_cast<int>(header.token_bytes);
  vocabulary_ = header.vocabulary;
  text_bytes_ = header.text_bytes == header.unknown_bytes ? -1 : static_cast<index_t>(header.text_bytes);
  end_of_text_ = header.end_of_text == header.no_end_of_text ? -1 : static_cast<std::int32_t>(header.end_of_text);
}

namespace detail {

// The value that follows 'key': in the header of a .npy file, up to the next comma that is not in brackets.
inline std::string npy_field(std::string_view header, std::string_view key) {
  for (const char quote : {'\'', '"'}) {
    const std::string quoted = quote + std::string(key) + quote;
    std::size_t at = header.find(quoted);
    if (at == std::string_view::npos) continue;
    at = header.find(':', at + quoted.size());
    if (at == std::string_view::npos) return {};
    const std::size_t first = header.find_first_not_of(' ', at + 1);
    if (first == std::string_view::npos) return {};
    const std::size_t last = header[first] == '(' ? header.find(')', first) : header.find_first_of(",}", first);
    if (last == std::string_view::npos) return {};
    return std::string(header.substr(first, last - first + (header[first] == '(')));
  }
  return {};
}

}  // namespace detail

inline void token_file::open_npy(index_t file_size) {
  std::array<unsigned char, 12> start{};
  read_bytes(start.data(), 8, 0);
  const int major = start[6];
  GRAFT_CHECK(major >= 1 && major <= 3, path_, ": expected version 1 to 3 of the npy format, found version ", major);
  const int prefix = major == 1 ? 10 : 12;
  GRAFT_CHECK(file_size >= prefix, path_, ": the npy header is cut, the file has ", file_size, " bytes");
  read_bytes(start.data(), static_cast<std::size_t>(prefix), 0);
  std::uint32_t length = start[8] | (start[9] << 8);
  if (major > 1)
    length |= (static_cast<std::uint32_t>(start[10]) << 16) | (static_cast<std::uint32_t>(start[11]) << 24);
  GRAFT_CHECK(prefix + index_t{length} <= file_size && length <= (1u << 16), path_, ": the npy header of ", length,
              " bytes does not fit in the file of ", file_size, " bytes");
  std::string header(length, '\0');
  read_bytes(header.data(), length, prefix);

  const std::string type = detail::npy_field(header, "descr");
  const std::string_view name = type.size() == 5 ? std::string_view(type).substr(1, 3) : std::string_view();
  GRAFT_CHECK(name == "<u2" || name == "<u4" || name == "<i4" || name == "<i8", path_,
              ": expected elements of type '<u2', '<u4', '<i4' or '<i8', found ", type.empty() ? "none" : type);
  token_bytes_ = name[2] - '0';
  is_signed_ = name[1] == 'i';

  const std::string shape = detail::npy_field(header, "shape");
  const std::size_t comma = shape.find(',');
  GRAFT_CHECK(shape.size() >= 4 && comma != std::string::npos && comma > 1 &&
                  shape.find_first_not_of("0123456789", 1) == comma &&
                  shape.find_first_not_of(" ,)", comma) == std::string::npos,
              path_, ": expected an array of one axis, found the shape ", shape.empty() ? "none" : shape);
  GRAFT_CHECK(comma <= 19, path_, ": expected fewer than 10^18 elements, found the shape ", shape);
  count_ = std::stoll(shape.substr(1, comma - 1));
  data_offset_ = prefix + index_t{length};
  const index_t data_bytes = file_size - data_offset_;
  GRAFT_CHECK(data_bytes % token_bytes_ == 0 && data_bytes / token_bytes_ == count_, path_, ": the header says ",
              count_, " elements of ", token_bytes_, " bytes, ", data_bytes, " bytes follow it");
}

inline void token_file::read_bytes(void* out, std::size_t size, index_t offset) const {
  auto* bytes = static_cast<char*>(out);
  while (size > 0) {
    const ssize_t count = ::pread(descriptor_, bytes, size, offset);
    if (count < 0 && errno == EINTR) continue;
    GRAFT_CHECK(count >= 0, path_, ": reading failed at byte ", offset, " (", std::strerror(errno), ")");
    GRAFT_CHECK(count > 0, path_, ": the file ends at byte ", offset, ", expected ", size,
                " more bytes (changed while open?)");
    bytes += count;
    size -= static_cast<std::size_t>(count);
    offset += count;
  }
}

inline void token_file::read(index_t first, std::span<std::int32_t> out) const {
  const auto wanted = static_cast<index_t>(out.size());
  GRAFT_CHECK(first >= 0 && wanted <= count_ && first <= count_ - wanted, path_, ": expected tokens within [0, ",
              count_, "), asked for [", first, ", ", first + wanted, ")");
  std::array<char, 8192> piece;
  const index_t piece_tokens = static_cast<index_t>(piece.size()) / token_bytes_;
  for (index_t done = 0; done < wanted;) {
    const index_t now = std::min(piece_tokens, wanted - done);
    read_bytes(piece.data(), static_cast<std::size_t>(now * token_bytes_),
               data_offset_ + (first + done) * token_bytes_);
    for (index_t i = 0; i < now; ++i, ++done) {
      std::uint64_t raw = 0;
      std::memcpy(&raw, piece.data() + i * token_bytes_, static_cast<std::size_t>(token_bytes_));
      auto token = static_cast<std::int64_t>(raw);
      if (is_signed_ && token_bytes_ == 4) token = static_cast<std::int32_t>(raw);
      GRAFT_CHECK(token >= 0 && token < vocabulary_, path_, ": expected tokens from 0 to ", vocabulary_ - 1, ", found ",
                  token, " at position ", first + done);
      out[static_cast<std::size_t>(done)] = static_cast<std::int32_t>(token);
    }
  }
}

}  // namespace graft
