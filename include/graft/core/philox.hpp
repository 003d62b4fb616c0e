// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Counter-based random numbers: Philox 4x32 with 10 rounds. A number is a function of (key, counter), never of
// who asks first, so results do not depend on threads or call order and nothing is saved for a resume.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

#include <array>
#include <cmath>
#include <cstdint>

#include <graft/core/host_device.hpp>

namespace graft {

struct philox_block {
  std::uint32_t word[4];
};

// The four words at (counter, key).
GRAFT_HOST_DEVICE constexpr philox_block philox(philox_block counter, std::uint32_t key0, std::uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter.word[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter.word[2];
    const auto high0 = static_cast<std::uint32_t>(product0 >> 32), low0 = static_cast<std::uint32_t>(product0);
    const auto high1 = static_cast<std::uint32_t>(product1 >> 32), low1 = static_cast<std::uint32_t>(product1);
    counter = {{high1 ^ counter.word[1] ^ key0, low1, high0 ^ counter.word[3] ^ key1, low0}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// What a random number is for. Streams never share numbers; the values are part of the reproducible result.
enum class random_stream : std::uint32_t { initialization = 1, data = 2, router = 3, dropout = 4, sampling = 5 };

// Random numbers of one stream: pure functions of (seed, stream, major, minor).
struct random_source {
  std::uint64_t seed = 0;
  random_stream stream = random_stream::initialization;

  // Four uniform words for item `minor` of group `major` (a step, a layer, a tensor). Requires: major < 2^56.
  GRAFT_HOST_DEVICE constexpr philox_block words(std::uint64_t major, std::uint64_t minor) const {
    const philox_block counter{{static_cast<std::uint32_t>(minor), static_cast<std::uint32_t>(minor >> 32),
                                static_cast<std::uint32_t>(major),
                                static_cast<std::uint32_t>(major >> 32) ^ (static_cast<std::uint32_t>(stream) << 24)}};
    return philox(counter, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
  }
  // Uniform in (0, 1]: never 0, so its logarithm is finite.
  GRAFT_HOST_DEVICE static constexpr double uniform(std::uint32_t word) { return (word + 1.0) * (1.0 / 4294967296.0); }

  // Uniform integer in [0, count). Bias below count / 2^64. Requires: count > 0.
  GRAFT_HOST_DEVICE constexpr std::uint64_t below(std::uint64_t count, std::uint64_t major, std::uint64_t minor) const {
    const philox_block block = words(major, minor);
    const std::uint64_t high = block.word[0], low = block.word[1];
    // (word * count) >> 64 in 32-bit limbs
    const std::uint64_t c1 = count >> 32, c0 = count & 0xffffffffu;
    const std::uint64_t cross = ((low * c0) >> 32) + ((high * c0) & 0xffffffffu) + low * c1 % 4294967296u;
    return high * c1 + ((high * c0) >> 32) + ((low * c1) >> 32) + (cross >> 32);
  }
  // Standard normal (Box-Muller).
  GRAFT_HOST_DEVICE double normal(std::uint64_t major, std::uint64_t minor) const {
    const philox_block block = words(major, minor);
    return ::sqrt(-2.0 * ::log(uniform(block.word[0]))) * ::cos(6.283185307179586 * uniform(block.word[1]));
  }
};

}  // namespace graft
