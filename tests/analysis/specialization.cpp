// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Domain and vocabulary specialization by hand, and what they sum to.

#include "catch.hpp"

#include <vector>

#include <graft/analysis/specialization.hpp>

namespace specialization_tests {

using namespace graft;

namespace {

// Two experts of three for each token; the first of a pair has the larger weight.
routing_trace trace_of(std::vector<std::int32_t> ids, std::vector<std::int32_t> selected) {
  routing_trace trace{std::move(ids), {}};
  block_routing block{1, 3, 2, std::move(selected), {}};
  for (std::size_t i = 0; i < block.selected.size(); ++i) block.weights.push_back(i % 2 == 0 ? 0.7f : 0.3f);
  trace.blocks.push_back(std::move(block));
  return trace;
}

}  // namespace

TEST_CASE("domain_specialization: by hand", "[analysis]") {
  // Padding at the end of the second domain is no token.
  const std::vector<routing_trace> domains{trace_of({7, 8, 7, 9}, {0, 1, 0, 2, 1, 0, 0, 1}),
                                           trace_of({5, 5, -1}, {2, 1, 2, 0, -1, -1})};
  const share_matrix shares = domain_specialization(domains, 0);
  CHECK(shares.rows == 2);
  CHECK(shares.values == std::vector<double>{1, 0.75, 0.25, 0.5, 0.5, 1});
  CHECK(shares.row_sum(0) == 2);  // k
  CHECK(shares.row_sum(1) == 2);

  // By weight: 0.7 for the first of each pair, 0.3 for the other.
  const share_matrix weights = domain_specialization(domains, 0, domain_share::weights);
  CHECK(weights(0, 0) == Approx((0.7 + 0.7 + 0.3 + 0.7) / 4));
  CHECK(weights.row_sum(0) == Approx(1));
  CHECK(weights.row_sum(1) == Approx(1));

  // The counts of an evaluation say the same.
  layer_load first, second;
  first.counts = {4, 3, 1};
  first.tokens = 4;
  second.counts = {1, 1, 2};
  second.tokens = 2;
  CHECK(domain_specialization(std::vector<layer_load>{first, second}).values == shares.values);

  CHECK_THROWS_WITH(domain_specialization(domains, 1), Catch::Contains("got 1 of 1"));
  CHECK_THROWS_WITH(domain_specialization(std::vector<routing_trace>{trace_of({-1}, {-1, -1})}, 0),
                    Catch::Contains("got none of domain 0"));
}

TEST_CASE("vocabulary_specialization: by hand", "[analysis]") {
  // Id 4 three times: experts {0,1}, {0,2}, {1,0}; id 6 once: {2,1}.
  const routing_trace trace = trace_of({4, 6, 4, 4}, {0, 1, 2, 1, 0, 2, 1, 0});
  const vocabulary_report all = vocabulary_specialization(trace, 0, {.least_occurrences = 1});
  CHECK(all.types == 2);
  // k = 1: id 4 goes to 0 twice of three times, id 6 to 2 always. Mean over ids, not over occurrences.
  CHECK(all.mean == (2.0 / 3 + 1) / 2);
  REQUIRE(all.lists.size() == 3);
  REQUIRE(all.lists[0].size() == 1);
  CHECK(all.lists[0][0].id == 4);
  CHECK(all.lists[0][0].share == 1);
  CHECK(all.lists[0][0].occurrences == 3);
  REQUIRE(all.lists[1].size() == 2);  // id 6: 1 of 1, id 4: 2 of 3
  CHECK(all.lists[1][0].id == 6);
  CHECK(all.lists[1][1].share == 2.0 / 3);
  REQUIRE(all.lists[2].size() == 2);
  CHECK(all.lists[2][1].share == 1.0 / 3);

  // Every id's shares sum to k.
  for (const std::int32_t id : {4, 6}) {
    double sum = 0;
    for (const auto& list : all.lists)
      for (const specific_token& token : list)
        if (token.id == id) sum += token.share;
    CHECK(sum == Approx(2).epsilon(1e-15));
  }

  const vocabulary_report largest =
      vocabulary_specialization(trace, 0, {.slots = counted_slots::largest, .least_occurrences = 1});
  CHECK(largest.lists[0][0].share == 2.0 / 3);
  CHECK(largest.lists[1][0].share == 1.0 / 3);
  CHECK(largest.lists[2][0].id == 6);
  CHECK(largest.mean == all.mean);
}

TEST_CASE("vocabulary_specialization: rare ids are in the mean and not in the lists", "[analysis]") {
  std::vector<std::int32_t> ids, selected;
  for (int i = 0; i < 10; ++i) ids.push_back(3), selected.insert(selected.end(), {0, 1});
  for (int i = 0; i < 9; ++i) ids.push_back(2), selected.insert(selected.end(), {i < 6 ? 1 : 2, 0});
  for (int i = 0; i < 12; ++i) ids.push_back(1), selected.insert(selected.end(), {0, 2});
  ids.push_back(-1);
  selected.insert(selected.end(), {-1, -1});
  const vocabulary_report report = vocabulary_specialization(trace_of(ids, selected), 0);
  CHECK(report.types == 3);
  CHECK(report.mean == Approx((1 + 6.0 / 9 + 1) / 3).epsilon(1e-15));
  REQUIRE(report.lists[0].size() == 2);
  CHECK(report.lists[0][0].id == 1);  // both always: the more frequent first
  CHECK(report.lists[0][1].id == 3);
  REQUIRE(report.lists[1].size() == 1);
  CHECK(report.lists[1][0].id == 3);
  CHECK(vocabulary_specialization(trace_of(ids, selected), 0, {.longest = 1}).lists[0].size() == 1);
}

}  // namespace specialization_tests
