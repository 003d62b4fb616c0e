// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Known answers of FNV-1a; the hash of memory sees every bit and the order of words.

#include "catch.hpp"

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

#include <graft/core/hash.hpp>

namespace hash_tests {

using namespace graft;

TEST_CASE("fnv1a: known answers, and pieces as the whole", "[core]") {
  CHECK(fnv1a("") == 0xcbf29ce484222325u);
  CHECK(fnv1a("a") == 0xaf63dc4c8601ec8cu);
  CHECK(fnv1a("foobar") == 0x85944171f73967e8u);
  CHECK(fnv1a("bar", fnv1a("foo")) == fnv1a("foobar"));
}

TEST_CASE("hash_memory: every bit counts, and where it stands", "[core]") {
  // 64 bytes are a row of lanes: two rows and a rest.
  std::vector<unsigned char> bytes(150);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(7 * i);
  std::set<std::uint64_t> seen{hash_memory(bytes.data(), bytes.size())};
  for (std::size_t i = 0; i < bytes.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] ^= static_cast<unsigned char>(1u << bit);
      CHECK(seen.insert(hash_memory(bytes.data(), bytes.size())).second);
      bytes[i] ^= static_cast<unsigned char>(1u << bit);
    }
  // Signs of two numbers, of one lane and of two.
  for (const std::size_t i : {3u, 7u, 11u})
    for (const std::size_t j : {67u, 71u, 75u}) {
      bytes[i] ^= 0x80, bytes[j] ^= 0x80;
      CHECK(seen.insert(hash_memory(bytes.data(), bytes.size())).second);
      bytes[i] ^= 0x80, bytes[j] ^= 0x80;
    }
  for (std::size_t length = 0; length < bytes.size(); ++length)
    CHECK(seen.insert(hash_memory(bytes.data(), length)).second);
  CHECK(hash_memory(bytes.data(), 150) == hash_memory(bytes.data(), 150));
  CHECK(hash_memory(bytes.data(), 150, 1) != hash_memory(bytes.data(), 150, 2));
}

}  // namespace hash_tests
