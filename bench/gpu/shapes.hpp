// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The shapes that are measured, and how rows fall to experts. `gpu_report shapes` prints them for the peers, so that
// both sides measure the same. small: shapes that a laptop, or an emulated device, computes in a second; the results
// of those are written to files and compared with other programs' on the same numbers.

#include <cstdint>
#include <string>
#include <vector>

#include <graft/core/attention_shape.hpp>
#include <graft/core/host_device.hpp>

#include "report_line.hpp"

namespace bench {

using graft::index_t;

// How rows fall to groups: "uniform" up to 10 % off the mean, "zipf" the group of rank r is 1 / (1 + r) as popular as
// the first, "empty" as uniform, but every fourth group gets nothing.

// Integers alone, so that peers.py computes the same.
inline std::uint64_t hash_number(std::uint64_t x) {  // Steele, Lea, Flood 2014, SplitMix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Popularity of a group among `groups`. In each repetition other groups are popular.
inline std::uint64_t group_weight(index_t group, index_t groups, const std::string& routing, int repetition) {
  const auto turn = static_cast<std::uint64_t>(group + 5 * repetition);
  std::uint64_t weight = 900000 + 1000 * (hash_number(turn + 4096u * static_cast<std::uint64_t>(repetition)) % 201);
  if (routing == "zipf") weight /= 1 + turn % static_cast<std::uint64_t>(groups);
  if (routing == "empty" && turn % 4 == 0) weight = 0;
  return weight;
}

// offsets (E+1): group e holds rows [offsets[e], offsets[e+1]).   offsets[e] = floor(rows * sum_{i<e} w_i / sum_i w_i)
inline std::vector<std::int32_t> group_offsets(index_t rows, index_t groups, const std::string& routing,
                                               int repetition) {
  std::uint64_t total = 0, sum = 0;
  for (index_t e = 0; e < groups; ++e) total += group_weight(e, groups, routing, repetition);
  std::vector<std::int32_t> offsets{0};
  for (index_t e = 0; e < groups; ++e) {
    sum += group_weight(e, groups, routing, repetition);
    offsets.push_back(static_cast<std::int32_t>(static_cast<std::uint64_t>(rows) * sum / total));
  }
  return offsets;
}

struct grouped_case {
  index_t groups, rows, columns, depth;  // rows: of all groups
  const char* routing;
  json_object json() const {
    return json_object()
        .add("groups", groups)
        .add("rows", rows)
        .add("n", columns)
        .add("k", depth)
        .add("routing", routing);
  }
};
struct moe_case {
  index_t tokens, width, hidden, experts;  // 8 slots a token
  const char* routing;
  json_object json() const {
    return json_object()
        .add("tokens", tokens)
        .add("width", width)
        .add("hidden", hidden)
        .add("experts", experts)
        .add("slots", 8)
        .add("routing", routing);
  }
};
inline json_object attention_json(const graft::attention_shape& s) {
  return json_object()
      .add("sequences", s.sequences)
      .add("positions", s.positions)
      .add("heads", s.heads)
      .add("kv_heads", s.kv_heads)
      .add("head_dim", s.head_dim);
}
struct cross_entropy_case {
  index_t tokens, width, vocabulary;
  json_object json() const {
    return json_object().add("tokens", tokens).add("width", width).add("vocabulary", vocabulary);
  }
};
struct adamw_case {
  index_t parameters;
  json_object json() const { return json_object().add("parameters", parameters); }
};
struct router_case {
  index_t tokens, experts;  // 8 slots a token
  json_object json() const { return json_object().add("tokens", tokens).add("experts", experts).add("slots", 8); }
};
struct permutation_case {
  index_t tokens, width, experts;  // 8 slots a token
  json_object json() const {
    return json_object().add("tokens", tokens).add("width", width).add("experts", experts).add("slots", 8);
  }
};
// Models in Llama's form: RMSNorm, rotary positions, SwiGLU.
struct step_case {
  const char* model;  // "dense" or "olmoe"
  index_t vocabulary, width, blocks, heads, hidden, experts, sequences, positions;
  json_object json() const {
    return json_object()
        .add("model", model)
        .add("vocabulary", vocabulary)
        .add("width", width)
        .add("blocks", blocks)
        .add("heads", heads)
        .add("hidden", hidden)
        .add("experts", experts)
        .add("sequences", sequences)
        .add("positions", positions);
  }
};

// (rows a group, n, k) of performance tables of grouped products elsewhere: TransformerEngine issue 2045, OLMoE's down
// and Qwen3's gate and up projections.
inline std::vector<grouped_case> grouped_cases(bool small) {
  if (small) return {{8, 1003, 136, 264, "zipf"}, {8, 500, 64, 128, "empty"}};
  return {{8, 8 * 4096, 768, 2048, "uniform"},    {16, 16 * 2048, 768, 2048, "uniform"},
          {64, 64 * 2048, 1024, 2048, "uniform"}, {64, 64 * 2048, 1024, 2048, "zipf"},
          {64, 64 * 2048, 1024, 2048, "empty"},   {128, 128 * 1536, 512, 1536, "uniform"}};
}
// OLMoE's layer; the 7B and 30B layers of SonicMoE's figure (arXiv 2512.14080).
inline std::vector<moe_case> moe_cases(bool small) {
  if (small) return {{203, 128, 96, 16, "zipf"}};
  return {{16384, 2048, 1024, 64, "uniform"},
          {16384, 2048, 1024, 64, "zipf"},
          {24576, 1536, 256, 128, "uniform"},
          {32768, 4096, 512, 128, "uniform"}};
}
inline std::vector<graft::attention_shape> attention_cases(bool small) {
  if (small) return {{2, 131, 4, 2, 64}, {1, 200, 2, 2, 128}};
  std::vector<graft::attention_shape> cases;
  for (const index_t head_dim : {64, 128})
    for (const index_t positions : {1024, 2048, 4096, 8192})
      cases.push_back({16384 / positions, positions, 2048 / head_dim, 2048 / head_dim, head_dim});
  return cases;
}
inline std::vector<cross_entropy_case> cross_entropy_cases(bool small) {
  if (small) return {{150, 64, 1000}};
  return {{16384, 2048, 50304}, {16384, 2048, 151936}};
}
inline std::vector<adamw_case> adamw_cases(bool small) {
  if (small) return {{10007}};
  return {{1'000'000'000}};
}
inline std::vector<router_case> router_cases(bool small) {
  if (small) return {{203, 64}};
  return {{16384, 64}, {16384, 128}, {16384, 256}};
}
inline std::vector<permutation_case> permutation_cases(bool small) {
  if (small) return {{203, 136, 16}};
  return {{16384, 2048, 64}};
}
inline std::vector<step_case> step_cases(bool small) {
  if (small) return {{"dense", 512, 64, 2, 2, 128, 0, 2, 64}, {"olmoe", 512, 64, 2, 2, 32, 16, 2, 64}};
  return {{"dense", 50304, 768, 12, 12, 2048, 0, 64, 1024}, {"olmoe", 50304, 2048, 8, 16, 1024, 64, 4, 4096}};
}

// All of them, one line each: {"part":...,"shape":{...}}
inline void print_shapes(bool small) {
  const auto print = [](const char* part, const json_object& shape) {
    print_line(json_object().add("part", part).add("shape", shape));
  };
  for (const auto& c : grouped_cases(small)) print("grouped", c.json());
  for (const auto& c : moe_cases(small)) print("moe", c.json());
  for (const auto& c : attention_cases(small)) print("attention", attention_json(c));
  for (const auto& c : cross_entropy_cases(small)) print("cross_entropy", c.json());
  for (const auto& c : adamw_cases(small)) print("adamw", c.json());
  for (const auto& c : router_cases(small)) print("router", c.json());
  for (const auto& c : permutation_cases(small)) print("permutation", c.json());
  for (const auto& c : step_cases(small)) print("steps", c.json());
}

}  // namespace bench
