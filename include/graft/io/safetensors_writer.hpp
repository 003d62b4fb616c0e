// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Writing of safetensors files. Tensors are asked for their bytes piece by piece, so that a file of any size needs
// one small buffer.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/atomic_file.hpp>
#include <graft/io/file_dtype.hpp>
#include <graft/io/json.hpp>
#include <graft/io/safetensors.hpp>

namespace graft {

// A tensor to be written. fill(first_byte, piece) stores the bytes [first_byte, first_byte + piece.size()) of the
// tensor in `piece`; both are multiples of 8 bytes but for the tensor's last piece.
struct tensor_source {
  std::string name;
  file_dtype dtype = file_dtype::f32;
  std::vector<std::uint64_t> shape;
  std::function<void(std::uint64_t first_byte, std::span<std::byte> piece)> fill;

  // Errors: a shape whose size overflows or does not fill whole bytes.
  std::uint64_t bytes() const {
    std::uint64_t bits = static_cast<std::uint64_t>(bits_of(dtype));
    for (const std::uint64_t extent : shape)
      GRAFT_CHECK(detail::checked_multiply(bits, extent, bits), "tensor ", detail::in_quotes(name), ": the shape ",
                  shape_text(shape), " is too large");
    GRAFT_CHECK(bits % 8 == 0, "tensor ", detail::in_quotes(name), ": the shape ", shape_text(shape), " of ",
                name_of(dtype), " does not fill whole bytes");
    return bits / 8;
  }
};

// A tensor whose elements stand in memory as float or double, stored as `dtype` (F64, F32 or BF16).
template <class T>
tensor_source make_tensor_source(std::string name, std::vector<std::uint64_t> shape, const T* data, file_dtype dtype) {
  GRAFT_CHECK(is_writable_weight(dtype), "tensor ", detail::in_quotes(name),
              ": expected weights to be saved as F64, F32 or BF16, got ", name_of(dtype));
  return {std::move(name), dtype, std::move(shape),
          [data, dtype](std::uint64_t first_byte, std::span<std::byte> piece) {
            const std::uint64_t width = static_cast<std::uint64_t>(bits_of(dtype)) / 8;
            convert_to_file(data + first_byte / width, dtype, piece.data(), static_cast<index_t>(piece.size() / width));
          }};
}

// Writes one safetensors file: {"format": "pt"} and `metadata` as its metadata, tensors by descending dtype then name.
// Does not commit. Errors: names that stand twice, a header above the limit of the format, and what the disk says.
inline void write_safetensors(atomic_file& file, std::vector<tensor_source> tensors,
                              std::map<std::string, std::string> metadata = {}) {
  // transformers refuses files whose format it does not know, and some versions crash without metadata.
  metadata.emplace("format", "pt");
  std::sort(tensors.begin(), tensors.end(), [](const tensor_source& a, const tensor_source& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  const std::string place = file.target().string();
  std::string header;
  try {
    header = "{\"__metadata__\":" + nlohmann::json(metadata).dump();
    std::set<std::string> names{"__metadata__"};
    std::uint64_t offset = 0;
    for (const tensor_source& tensor : tensors) {
      GRAFT_CHECK(names.insert(tensor.name).second, place, ": cannot write two entries named ",
                  detail::in_quotes(tensor.name));
      const std::uint64_t end = offset + tensor.bytes();
      header += "," + nlohmann::json(tensor.name).dump() + ":{\"dtype\":\"" + std::string(name_of(tensor.dtype)) +
                "\",\"shape\":" + nlohmann::json(tensor.shape).dump() + ",\"data_offsets\":[" + std::to_string(offset) +
                "," + std::to_string(end) + "]}";
      offset = end;
    }
  } catch (const nlohmann::json::exception&) {
    detail::raise(place, ": cannot write names or metadata that are not UTF-8");
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  GRAFT_CHECK(header.size() <= safetensors_header_limit, place, ": cannot write a header of ", header.size(),
              " bytes, the format allows ", safetensors_header_limit);

  const std::uint64_t length = header.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  for (const tensor_source& tensor : tensors) {
    const std::uint64_t bytes = tensor.bytes();
    for (std::uint64_t first = 0; first < bytes; first += buffer.size()) {
      const std::span piece(buffer.data(),
                            static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), bytes - first)));
      tensor.fill(first, piece);
      file.write(piece);
    }
  }
}

inline void write_safetensors(const std::filesystem::path& path, std::vector<tensor_source> tensors,
                              std::map<std::string, std::string> metadata = {}) {
  atomic_file file(path);
  write_safetensors(file, std::move(tensors), std::move(metadata));
  file.commit();
}

}  // namespace graft
