// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What bench/gpu computes without a GPU: floors, how rows fall to groups, and the join with the peers' lines.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "../../bench/gpu/floors.hpp"
#include "../../bench/gpu/shapes.hpp"
#include "catch.hpp"

namespace gpu_report_tests {

namespace {

using namespace bench;

// Rates of a round number each, so that the expected values below follow by hand.
constexpr ceilings card{798e12, 3.0e12};

// Both to the last of the three digits that are given.
bool about(double value, double expected) { return std::abs(value - expected) <= 0.006 * expected; }

TEST_CASE("gpu floors: a mixture layer, forward and backward") {
  struct expectation {
    moe_sizes sizes;
    double forward_flops, backward_flops, forward_bytes, backward_bytes, floor_ms;
  };
  // tokens, width, hidden, experts, slots: OLMoE's layer, the 7B and the 30B layer of SonicMoE's figure.
  for (const expectation& e : {expectation{{16384, 2048, 1024, 64, 8}, 1.65e12, 3.31e12, 3.56e9, 7.85e9, 6.22},
                               expectation{{24576, 1536, 256, 128, 8}, 0.474e12, 0.947e12, 2.59e9, 5.01e9, 2.53},
                               expectation{{32768, 4096, 512, 128, 8}, 3.33e12, 6.67e12, 9.40e9, 18.5e9, 12.5}}) {
    const work forward = moe_forward_work(e.sizes), backward = moe_backward_work(e.sizes);
    CHECK(about(forward.flops, e.forward_flops));
    CHECK(about(backward.flops, e.backward_flops));
    CHECK(about(forward.bytes, e.forward_bytes));
    CHECK(about(backward.bytes, e.backward_bytes));
    CHECK(about(1e3 * (floor_seconds(forward, card) + floor_seconds(backward, card)), e.floor_ms));
  }
}

TEST_CASE("gpu floors: the larger of two times, and what the smaller pieces move") {
  CHECK(floor_seconds({6, 1}, {2, 1}) == 3.0);
  CHECK(floor_seconds({6, 5}, {2, 1}) == 5.0);
  // 2 rows, 3 columns, depth 5, 7 groups of which 1 has rows: elements of x, w, y are 10, 15, 6.
  CHECK(grouped_forward_work(2, 3, 5, 1).flops == 60);
  CHECK(grouped_forward_work(2, 3, 5, 1).bytes == 2 * (10 + 15 + 6));
  CHECK(grouped_input_gradient_work(2, 3, 5, 1).bytes == 2 * (6 + 15 + 10));
  CHECK(grouped_weight_gradient_work(2, 3, 5, 7, 2, false).bytes == 2 * (6 + 10) + 2 * 7 * 15);
  CHECK(grouped_weight_gradient_work(2, 3, 5, 7, 4, true).bytes == 2 * (6 + 10) + 8 * 7 * 15);
  // 1 sequence of 4 positions, 2 heads of 8 that share one key and value head: qkv 4 x 32, out 4 x 16, lse 4 x 2.
  const graft::attention_shape attention{1, 4, 2, 1, 8};
  CHECK(attention_forward_work(attention).flops == 2 * 4 * 4 * 8 * 2);
  CHECK(attention_backward_work(attention).flops == 2.5 * attention_forward_work(attention).flops);
  CHECK(attention_forward_work(attention).bytes == 2 * (128 + 64) + 4 * 8);
  CHECK(attention_backward_work(attention).bytes == 2 * (2 * 128 + 2 * 64) + 4 * 8);
  // x and dx 2 x 3 in bf16, head 5 x 3 in bf16 and its gradient in fp32
  CHECK(cross_entropy_work(2, 3, 5).bytes == 2 * 2 * 6 + 2 * 15 + 4 * 15);
  CHECK(cross_entropy_work(2, 3, 5).flops == 3 * 2 * 2 * 3 * 5);
  CHECK(gather_work(2, 3, 5).bytes == 2 * 10 + 2 * 30 + 4 * 6);
  CHECK(combine_work(2, 3, 5).bytes == 2 * 30 + 2 * 10 + 8 * 6);
  CHECK(combine_backward_work(2, 3, 5).bytes == 2 * 10 + 2 * 30 + 2 * 30 + 12 * 6);
  CHECK(plan_work(2, 3).bytes == 4 * 6 + 8 * 6);
  CHECK(router_forward_work(2, 5, 3).bytes == 4 * 10 + 8 * 6);
  CHECK(router_backward_work(2, 5, 3).bytes == 2 * 4 * 10 + 12 * 6);
}

TEST_CASE("gpu floors: a training step is its operations and then the optimizer") {
  CHECK(about(adamw_work(124e6).bytes / card.bytes, 1.24e-3));
  CHECK(about(adamw_work(6.92e9).bytes / card.bytes, 69.2e-3));
  // GPT-2 124M, 65536 tokens of 0.80 GFLOP: a million tokens a second, and 1.2 ms of AdamW
  CHECK(about(step_floor_seconds(65536 * 0.80e9, 124e6, card), 0.0657 + 0.00124));
  // 1e9 weights in bf16, 2 blocks with 3 columns of keys and values at 5 positions
  CHECK(decode_work(1e9, 2, 3, 5).bytes == 2e9 + 2 * 5 * 3 * 2 * 2);
}

TEST_CASE("gpu shapes: rows fall to groups as the routing says, otherwise in each repetition") {
  for (const std::string routing : {"uniform", "zipf", "empty"}) {
    CAPTURE(routing);
    std::set<std::vector<std::int32_t>> seen;
    for (int repetition = 0; repetition < 5; ++repetition) {
      const auto offsets = group_offsets(131072, 64, routing, repetition);
      REQUIRE(offsets.size() == 65);
      CHECK(offsets.front() == 0);
      CHECK(offsets.back() == 131072);
      CHECK(std::is_sorted(offsets.begin(), offsets.end()));
      std::vector<std::int32_t> sizes;
      for (std::size_t e = 0; e < 64; ++e) sizes.push_back(offsets[e + 1] - offsets[e]);
      const auto most = *std::max_element(sizes.begin(), sizes.end());
      const auto least = *std::min_element(sizes.begin(), sizes.end());
      const auto empty = std::count(sizes.begin(), sizes.end(), 0);
      if (routing == "uniform") CHECK((least > 2048 * 0.8 && most < 2048 * 1.2));
      if (routing == "zipf") CHECK((most > 40 * least && least > 0));  // 1 to 1/64, each up to 10 % off
      CHECK(empty == (routing == "empty" ? 16 : 0));
      seen.insert(offsets);
    }
    CHECK(seen.size() == 5);
  }
}

TEST_CASE("gpu report: lines are JSON with their strings quoted") {
  CHECK(json_object().add("a", 1).add("b", "x\"y\\").add("c", 0.5).add("d", true).text() ==
        R"({"a":1,"b":"x\"y\\","c":0.5,"d":true})");
  CHECK(json_object().add("shape", json_object().add("k", 2)).text() == R"({"shape":{"k":2}})");
  CHECK(json_object().add("none", std::numeric_limits<double>::quiet_NaN()).text() == R"({"none":null})");
}

// The Python side has its examples in its comments; rows per group must be the same integers there.
TEST_CASE("gpu peers: examples of the Python files, and the same rows per group") {
  const std::string folder = std::string(GRAFT_TEST_DATA_DIR) + "/../../bench/gpu";
  if (std::system("command -v python3 > /dev/null 2>&1") != 0) {
    WARN("no python3 here");
    return;
  }
  const std::string python = "cd '" + folder + "' && PYTHONDONTWRITEBYTECODE=1 python3 ";
  CHECK(std::system((python + "-m doctest table.py peers/routing.py").c_str()) == 0);
  for (const std::string routing : {"uniform", "zipf", "empty"}) {
    std::ostringstream expected;
    for (const std::int32_t offset : group_offsets(196608, 128, routing, 7)) expected << offset << ", ";
    const std::string command = python + "-c 'import sys; sys.path.insert(0, \"peers\"); from routing import *; " +
                                "sys.exit(group_offsets(196608, 128, \"" + routing + "\", 7) != [" + expected.str() +
                                "])'";
    CHECK(std::system(command.c_str()) == 0);
  }
}

}  // namespace

}  // namespace gpu_report_tests
