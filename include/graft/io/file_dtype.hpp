// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The element types that checkpoint files name, and the conversion of the floating ones to and from the types that
// graft computes master weights in. File data may start at any byte, so everything goes through memcpy.

#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <type_traits>

#include <graft/core/dtype.hpp>
#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>

namespace graft {

static_assert(std::endian::native == std::endian::little,
              "graft::file_dtype: checkpoint files are little-endian. Add byte swapping for this machine.");

// In the order of the safetensors format: a writer lays out tensors by descending value, so that every tensor starts
// at a multiple of its element size.
enum class file_dtype : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64
};
inline constexpr int file_dtype_count = 22;

namespace detail {

struct file_dtype_row {
  std::string_view name;
  int bits;
};
inline constexpr file_dtype_row file_dtypes[file_dtype_count] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};

}  // namespace detail

constexpr std::string_view name_of(file_dtype type) { return detail::file_dtypes[static_cast<int>(type)].name; }
constexpr int bits_of(file_dtype type) { return detail::file_dtypes[static_cast<int>(type)].bits; }

constexpr std::optional<file_dtype> find_file_dtype(std::string_view name) {
  for (int i = 0; i < file_dtype_count; ++i)
    if (detail::file_dtypes[i].name == name) return static_cast<file_dtype>(i);
  return std::nullopt;
}

// Whether graft reads weights from this type.
constexpr bool is_readable_weight(file_dtype type) {
  return type == file_dtype::f64 || type == file_dtype::f32 || type == file_dtype::bf16 || type == file_dtype::f16;
}
// Whether graft writes weights in this type.
constexpr bool is_writable_weight(file_dtype type) {
  return type == file_dtype::f64 || type == file_dtype::f32 || type == file_dtype::bf16;
}

// An IEEE half as a float, exactly. Subnormal halves go through an integer so that a flush-to-zero mode cannot lose
// them.
constexpr float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  const std::uint32_t wide = exponent == 31 ? 0xffu : exponent + 112u;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

namespace detail {

template <class Stored, class T, class Widen>
void convert_elements(const std::byte* source, T* target, index_t count, Widen widen) {
  for (index_t i = 0; i < count; ++i) {
    Stored element;
    std::memcpy(&element, source + i * static_cast<index_t>(sizeof(Stored)), sizeof(Stored));
    target[i] = widen(element);
  }
}

}  // namespace detail

// count elements of the stored type as T. Exact, but for F64 read as float, which rounds to nearest.
// Requires: is_readable_weight(type). The source may be misaligned.
template <class T>
void convert_from_file(file_dtype type, const std::byte* source, T* target, index_t count) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>,
                "graft::convert_from_file: master weights are float or double. Convert from one of these.");
  if (count == 0) return;
  switch (type) {
    case file_dtype::f64:
      return detail::convert_elements<double>(source, target, count, [](double v) { return static_cast<T>(v); });
    case file_dtype::f32:
      if constexpr (std::is_same_v<T, float>) {
        std::memcpy(target, source, static_cast<std::size_t>(count) * sizeof(float));
        return;
      } else {
        return detail::convert_elements<float>(source, target, count, [](float v) { return static_cast<T>(v); });
      }
    case file_dtype::bf16:
      return detail::convert_elements<bfloat16>(source, target, count,
                                                [](bfloat16 v) { return static_cast<T>(static_cast<float>(v)); });
    case file_dtype::f16:
      return detail::convert_elements<std::uint16_t>(source, target, count,
                                                     [](std::uint16_t v) { return static_cast<T>(half_to_float(v)); });
    default:
      detail::raise("convert_from_file: expected weights of F64, F32, BF16 or F16, got ", name_of(type));
  }
}

// count elements of T in the stored type, rounded to nearest even. Requires: is_writable_weight(type).
template <class T>
void convert_to_file(const T* source, file_dtype type, std::byte* target, index_t count) {
  const auto store = [&](auto narrow) {
    for (index_t i = 0; i < count; ++i) {
      const auto element = narrow(source[i]);
      std::memcpy(target + i * static_cast<index_t>(sizeof(element)), &element, sizeof(element));
    }
  };
  switch (type) {
    case file_dtype::f64:
      return store([](T v) { return static_cast<double>(v); });
    case file_dtype::f32:
      return store([](T v) { return static_cast<float>(v); });
    case file_dtype::bf16:
      return store([](T v) { return bfloat16(v); });
    default:
      detail::raise("convert_to_file: expected F64, F32 or BF16, got ", name_of(type));
  }
}

}  // namespace graft
