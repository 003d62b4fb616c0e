// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading of safetensors files: a length, a JSON header that names tensors and their byte ranges, the bytes. Every rule
// of the format is enforced when the file is opened, so that what comes after can trust the header.
// Source: huggingface/safetensors, safetensors/src/tensor.rs at 24b0b28.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/file_dtype.hpp>
#include <graft/io/json.hpp>
#include <graft/io/mapped_file.hpp>

namespace graft {

inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;

struct stored_tensor {
  std::string name;
  file_dtype dtype = file_dtype::f32;
  std::vector<std::uint64_t> shape;  // empty: a scalar
  std::uint64_t begin = 0, end = 0;  // bytes, from the start of the data area

  std::uint64_t bytes() const { return end - begin; }
  // Elements; does not overflow once the header is checked.
  std::uint64_t size() const {
    std::uint64_t count = 1;
    for (const std::uint64_t extent : shape) count *= extent;
    return count;
  }
};

struct safetensors_header {
  std::vector<stored_tensor> tensors;           // in the order of their bytes
  std::map<std::string, std::string> metadata;  // "__metadata__"
  std::uint64_t data_begin = 0;                 // bytes from the start of the file
};

// "[256, 64]"
inline std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

namespace detail {

inline bool checked_multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& product) {
  return !__builtin_mul_overflow(a, b, &product);
}

inline std::uint64_t unsigned_entry(const nlohmann::json& value, const std::string& place, const char* key) {
  GRAFT_CHECK(value.is_number_unsigned(), place, ": expected ", key, " to hold integers from 0 to 2^64-1, got ",
              shown(value));
  return value.get<std::uint64_t>();
}

inline stored_tensor parse_stored_tensor(const std::string& name, const nlohmann::json& value,
                                         const std::string& file) {
  const std::string place = file + ": tensor " + in_quotes(name);
  json_reader entry(value, place);
  stored_tensor tensor;
  tensor.name = name;

  const std::string dtype = entry.text("dtype");
  const auto known = find_file_dtype(dtype);
  GRAFT_CHECK(known.has_value(), place, ": unknown dtype ", in_quotes(dtype),
              ", expected one of the safetensors format (F32, BF16, F16, F64, I64, U8, ...)");
  tensor.dtype = *known;

  const auto& shape = entry.get("shape");
  if (!shape.is_array()) entry.wrong("shape", "an array of integers", shape);
  for (const auto& extent : shape) tensor.shape.push_back(unsigned_entry(extent, place, "shape"));

  const auto& offsets = entry.get("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) entry.wrong("data_offsets", "an array of two integers", offsets);
  tensor.begin = unsigned_entry(offsets[0], place, "data_offsets");
  tensor.end = unsigned_entry(offsets[1], place, "data_offsets");
  entry.finish();

  GRAFT_CHECK(tensor.end >= tensor.begin, place, ": expected data_offsets in ascending order, got [", tensor.begin,
              ", ", tensor.end, "]");
  std::uint64_t bits = static_cast<std::uint64_t>(bits_of(tensor.dtype));
  std::uint64_t count = 1;
  bool fits = true;
  for (const std::uint64_t extent : tensor.shape) fits = fits && checked_multiply(count, extent, count);
  fits = fits && checked_multiply(count, bits, bits);
  GRAFT_CHECK(fits, place, ": the shape ", shape_text(tensor.shape), " of ", dtype,
              " has more bits than 64-bit arithmetic holds");
  GRAFT_CHECK(bits % 8 == 0, place, ": the shape ", shape_text(tensor.shape), " of ", dtype,
              " does not fill whole bytes, it has ", bits, " bits");
  GRAFT_CHECK(tensor.bytes() == bits / 8, place, ": expected ", bits / 8, " bytes for the shape ",
              shape_text(tensor.shape), " of ", dtype, ", got ", tensor.bytes(), " (data_offsets [", tensor.begin, ", ",
              tensor.end, "])");
  return tensor;
}

}  // namespace detail

// Parses and checks the header of a whole file in memory. `file` is its name in messages.
// Errors: graft::error naming file, tensor, value and what was expected, for every violation of the format.
inline safetensors_header parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  GRAFT_CHECK(bytes.size() >= 8, file, ": expected a safetensors file of at least 8 bytes, got ", bytes.size());
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  GRAFT_CHECK(length <= safetensors_header_limit, file, ": expected a header of at most ", safetensors_header_limit,
              " bytes, the file says ", length);
  GRAFT_CHECK(length <= bytes.size() - 8, file, ": truncated, the header should have ", length,
              " bytes and the file holds ", bytes.size() - 8, " after the length");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  GRAFT_CHECK(!text.empty() && text.front() == '{', file, ": expected the header to start with {, got ",
              text.empty() ? std::string("an empty header") : detail::in_quotes(text.substr(0, 1)));

  safetensors_header header;
  header.data_begin = 8 + length;
  const nlohmann::json root = parse_json(text, file + ": header");
  for (const auto& [name, value] : root.items()) {
    if (name != "__metadata__") {
      header.tensors.push_back(detail::parse_stored_tensor(name, value, file));
      continue;
    }
    GRAFT_CHECK(value.is_object(), file, ": expected __metadata__ to be an object of strings, got ",
                detail::shown(value));
    for (const auto& [key, entry] : value.items()) {
      GRAFT_CHECK(entry.is_string(), file, ": expected __metadata__ to hold strings, got ", detail::shown(entry),
                  " for ", detail::in_quotes(key));
      header.metadata.emplace(key, entry.template get<std::string>());
    }
  }

  std::sort(header.tensors.begin(), header.tensors.end(), [](const stored_tensor& a, const stored_tensor& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  std::uint64_t expected = 0;
  for (const stored_tensor& tensor : header.tensors) {
    GRAFT_CHECK(tensor.begin == expected, file, ": tensor ", detail::in_quotes(tensor.name), ": ",
                tensor.begin > expected ? "a hole before it" : "it overlaps the tensor before it",
                ", expected its data to begin at ", expected, ", got ", tensor.begin);
    expected = tensor.end;
  }
  const std::uint64_t present = bytes.size() - header.data_begin;
  GRAFT_CHECK(expected <= present, file, ": truncated, the tensors need ", expected,
              " bytes of data and the file holds ", present);
  GRAFT_CHECK(expected == present, file, ": ", present - expected, " bytes after the last tensor, the tensors need ",
              expected, " bytes of data and the file holds ", present);
  return header;
}

// An open safetensors file.
class safetensors_file {
 public:
  explicit safetensors_file(const std::filesystem::path& path)
      : file_(path), header_(parse_safetensors(file_.bytes(), path.string())), by_name_(header_.tensors.size()) {
    for (std::size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = i;
    std::sort(by_name_.begin(), by_name_.end(), [&](std::size_t a, std::size_t b) { return name(a) < name(b); });
  }

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::vector<stored_tensor>& tensors() const { return header_.tensors; }

  // nullptr when there is none of this name.
  const stored_tensor* find(std::string_view wanted) const {
    const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), wanted,
                                     [&](std::size_t i, std::string_view key) { return name(i) < key; });
    return at != by_name_.end() && name(*at) == wanted ? &header_.tensors[*at] : nullptr;
  }

  // The bytes of a tensor of this file, at any alignment.
  std::span<const std::byte> bytes(const stored_tensor& tensor) const {
    return file_.bytes().subspan(header_.data_begin + tensor.begin, tensor.bytes());
  }

  // `count` elements from element `first` on, as float or double.
  // Errors: a dtype that holds no weights, a range outside of the tensor.
  template <class T>
  void read(const stored_tensor& tensor, std::uint64_t first, std::uint64_t count, T* target) const {
    GRAFT_CHECK(is_readable_weight(tensor.dtype), path().string(), ": tensor ", detail::in_quotes(tensor.name),
                ": expected weights of F64, F32, BF16 or F16, got ", name_of(tensor.dtype));
    GRAFT_CHECK(first <= tensor.size() && count <= tensor.size() - first, path().string(), ": tensor ",
                detail::in_quotes(tensor.name), ": asked for elements ", first, " to ", first + count, " of ",
                tensor.size());
    const std::uint64_t width = static_cast<std::uint64_t>(bits_of(tensor.dtype)) / 8;
    convert_from_file(tensor.dtype, bytes(tensor).data() + first * width, target, static_cast<index_t>(count));
  }
  template <class T>
  void read(const stored_tensor& tensor, T* target) const {
    read(tensor, 0, tensor.size(), target);
  }

 private:
  const std::string& name(std::size_t i) const { return header_.tensors[i].name; }

  mapped_file file_;
  safetensors_header header_;
  std::vector<std::size_t> by_name_;
};

}  // namespace graft
