// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One hash for names and texts, FNV-1a of 64 bits, and its faster relative for weights. Not for security.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace graft {

inline constexpr std::uint64_t fnv1a_start = 0xcbf29ce484222325u;

constexpr std::uint64_t fnv1a_byte(std::uint64_t state, unsigned char byte) { return (state ^ byte) * 0x100000001b3u; }

// Continues from `state`, so that pieces can be hashed one after another.
constexpr std::uint64_t fnv1a(std::string_view bytes, std::uint64_t state = fnv1a_start) {
  for (const char byte : bytes) state = fnv1a_byte(state, static_cast<unsigned char>(byte));
  return state;
}

// Continues from `state` by words instead of bytes, in eight lanes that a processor multiplies side by side: about as
// fast as memory is read. Other values than fnv1a, and others for pieces than for the whole. A word is mixed before it
// meets its lane, so that flipped signs of several numbers do not undo each other. Multipliers: those of splitmix64.
inline std::uint64_t hash_memory(const void* data, std::size_t bytes, std::uint64_t state = fnv1a_start) {
  constexpr std::size_t lanes = 8;
  constexpr std::uint64_t first = 0xbf58476d1ce4e5b9u, second = 0x94d049bb133111ebu, third = 0x9e3779b97f4a7c15u;
  std::uint64_t lane[lanes], words[lanes];
  for (std::size_t i = 0; i < lanes; ++i) lane[i] = fnv1a_start + i;
  const char* at = static_cast<const char*>(data);
  for (; bytes >= sizeof words; bytes -= sizeof words, at += sizeof words) {
    std::memcpy(words, at, sizeof words);
    for (std::size_t i = 0; i < lanes; ++i) {
      const std::uint64_t mixed = std::rotl(words[i] * first, 31) * second;
      lane[i] = std::rotl(lane[i] ^ mixed, 27) * third;
    }
  }
  state = fnv1a({at, bytes}, state);
  for (const std::uint64_t each : lane)
    for (int shift = 0; shift < 64; shift += 8) state = fnv1a_byte(state, static_cast<unsigned char>(each >> shift));
  return state;
}

}  // namespace graft
