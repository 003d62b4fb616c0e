// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One hash for names, texts and weights: FNV-1a of 64 bits. Not for security.

#include <cstdint>
#include <string_view>

namespace graft {

inline constexpr std::uint64_t fnv1a_start = 0xcbf29ce484222325u;

// Continues from `state`, so that pieces can be hashed one after another.
constexpr std::uint64_t fnv1a(std::string_view bytes, std::uint64_t state = fnv1a_start) {
  for (const char byte : bytes) state = (state ^ static_cast<unsigned char>(byte)) * 0x100000001b3u;
  return state;
}

}  // namespace graft
