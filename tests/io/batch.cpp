// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Batches: windows are functions of (seed, step, sequence), shares of domains are kept, evaluations cover every
// token once.

#include "catch.hpp"

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <graft/io/batch.hpp>
#include <graft/io/token_file_writer.hpp>

#include "io/io_test.hpp"

namespace batch_tests {

namespace {

// A token file whose token at i is first + i.
graft::token_file counting_file(const std::filesystem::path& path, graft::index_t count, std::int32_t first = 0) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  graft::token_file_writer writer(path, {count, 1'000'000});
  writer.append(tokens);
  writer.finish();
  return graft::token_file(path);
}

std::vector<graft::token_file> list(graft::token_file a) {
  std::vector<graft::token_file> files;
  files.push_back(std::move(a));
  return files;
}

}  // namespace

TEST_CASE("batch_sampler: windows of consecutive tokens, targets one further, over all places", "[io][batch]") {
  const io_test::scratch_folder folder;
  graft::batch_sampler sampler(list(counting_file(folder / "a.bin", 20)), {}, 3);
  graft::token_batch batch;
  std::vector<int> seen(20);
  for (int step = 0; step < 200; ++step) {
    sampler.sample(step, 4, 8, batch);
    REQUIRE(batch.inputs.size() == 32);
    REQUIRE(batch.targets.size() == 32);
    for (std::size_t i = 0; i < 32; ++i) {
      REQUIRE(batch.targets[i] == batch.inputs[i] + 1);
      if (i % 8 > 0) REQUIRE(batch.inputs[i] == batch.inputs[i - 1] + 1);
    }
    for (std::size_t row = 0; row < 4; ++row) ++seen[static_cast<std::size_t>(batch.inputs[row * 8])];
  }
  // 800 windows over the 12 places 0 to 11: 66.7 each, 5 standard deviations are 39.
  for (int place = 0; place < 12; ++place) CHECK(std::abs(seen[static_cast<std::size_t>(place)] - 66.7) < 39);
  CHECK(std::accumulate(seen.begin() + 12, seen.end(), 0) == 0);
}

TEST_CASE("batch_sampler: a window does not depend on the call it comes from", "[io][batch]") {
  const io_test::scratch_folder folder;
  const auto sampler = [&](std::uint64_t seed) {
    std::vector<graft::token_file> files;
    files.push_back(counting_file(folder / "a.bin", 5000));
    files.push_back(counting_file(folder / "b.bin", 5000, 100000));
    return graft::batch_sampler(std::move(files), {1, 2}, seed);
  };
  auto first = sampler(7), second = sampler(7), other = sampler(8);
  graft::token_batch whole, part, different;
  first.sample(11, 12, 16, whole);
  second.sample(10, 12, 16, part);  // another step before it changes nothing
  std::vector<std::int32_t> joined;
  for (const graft::index_t begin : {8, 0, 4}) {
    second.sample(11, begin, 4, 12, 16, part);
    joined.insert(begin == 8 ? joined.end() : joined.begin() + begin * 16, part.inputs.begin(), part.inputs.end());
  }
  CHECK(joined == whole.inputs);
  other.sample(11, 12, 16, different);
  CHECK(different.inputs != whole.inputs);
  second.sample(12, 12, 16, different);
  CHECK(different.inputs != whole.inputs);
}

TEST_CASE("batch_sampler: each domain has its share of every step", "[io][batch]") {
  const io_test::scratch_folder folder;
  const std::vector<double> weights =
      GENERATE(std::vector<double>{1, 1, 1, 1}, std::vector<double>{5, 0, 3, 2},
               std::vector<double>{0.7, 0.1, 0.1, 0.1}, std::vector<double>{0, 0, 1, 0});
  const graft::index_t sequences = GENERATE(1, 7, 16, 30);
  std::vector<graft::token_file> files;
  for (int d = 0; d < 4; ++d) files.push_back(counting_file(folder / (std::to_string(d) + ".bin"), 50));
  const graft::batch_sampler sampler(std::move(files), weights, 5);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> drawn(4);
  const int steps = 400;
  for (int step = 0; step < steps; ++step) {
    std::vector<int> count(4);
    for (graft::index_t i = 0; i < sequences; ++i) ++count[sampler.domain_of(step, i, sequences)];
    for (std::size_t d = 0; d < 4; ++d) {
      const double share = weights[d] / total * static_cast<double>(sequences);
      CHECK(count[d] >= std::floor(share - 1e-9));
      CHECK(count[d] <= std::ceil(share + 1e-9));
      drawn[d] += count[d];
    }
  }
  // Over many steps the roundings even out: each step's has a standard deviation of at most 1/2, 5 of the sum's are 50.
  for (std::size_t d = 0; d < 4; ++d)
    CHECK(std::abs(drawn[d] - weights[d] / total * static_cast<double>(sequences) * steps) < 50);
}

TEST_CASE("batch_sampler: the smallest domain that serves, and what is refused", "[io][batch]") {
  const io_test::scratch_folder folder;
  graft::token_batch batch;
  graft::batch_sampler exact(list(counting_file(folder / "a.bin", 9)));
  exact.sample(0, 2, 8, batch);
  CHECK(batch.inputs[0] == 0);
  CHECK(batch.targets[15] == 8);
  CHECK_ERROR(exact.sample(0, 2, 9, batch), "a.bin", "at least 10 tokens", "found 9");
  CHECK_ERROR(exact.sample(0, 2, 2, 3, 8, batch), "first=2", "count=2", "step_sequences=3");
  CHECK_ERROR(graft::batch_sampler({}), "at least one domain");
  CHECK_ERROR(graft::batch_sampler(list(graft::token_file(folder / "a.bin")), {1, 2}), "2 weights, domains=1");
  CHECK_ERROR(graft::batch_sampler(list(graft::token_file(folder / "a.bin")), {-1}), "-1");
  CHECK_ERROR(graft::batch_sampler(list(graft::token_file(folder / "a.bin")), {0}), "only zeros");
  CHECK_ERROR(graft::batch_sampler(list(graft::token_file(folder / "a.bin")), {std::nan("")}), "nan");
}

TEST_CASE("batch_sampler: no memory is requested after the first batch", "[io][batch]") {
  const io_test::scratch_folder folder;
  graft::batch_sampler sampler(list(counting_file(folder / "a.bin", 500)));
  graft::token_batch batch;
  sampler.sample(0, 4, 16, batch);
  const auto* inputs = batch.inputs.data();
  const auto* targets = batch.targets.data();
  for (int step = 1; step < 20; ++step) sampler.sample(step, 4, 16, batch);
  CHECK(batch.inputs.data() == inputs);
  CHECK(batch.targets.data() == targets);
}

TEST_CASE("evaluation_windows: every token but the first is predicted once", "[io][batch]") {
  const io_test::scratch_folder folder;
  const graft::index_t count = GENERATE(2, 10, 17, 18, 100);
  const std::vector<std::int32_t> lengths(1'000'000, 1);
  graft::evaluation_windows windows(counting_file(folder / "a.bin", count), 8, 0, lengths);
  CHECK(windows.size() == (count - 1 + 7) / 8);
  graft::token_batch batch;
  graft::evaluation_count total;
  std::int32_t next = 1;
  for (graft::index_t first = 0; first < windows.size(); first += 3) {
    const graft::evaluation_count part = windows.fill(first, 3, batch);
    total.tokens += part.tokens;
    total.bytes += part.bytes;
    REQUIRE(batch.targets.size() == 24);
    for (std::size_t i = 0; i < 24; ++i)
      if (batch.targets[i] != graft::ignored_target) {
        CHECK(batch.targets[i] == next++);
        CHECK(batch.inputs[i] == batch.targets[i] - 1);
      }
  }
  CHECK(next == count);
  CHECK(total.tokens == count - 1);
  CHECK(total.bytes == count - 1);
}

TEST_CASE("evaluation_windows: end of text counts no bytes, and the limit spreads the windows", "[io][batch]") {
  const io_test::scratch_folder folder;
  const auto path = folder / "a.bin";
  std::vector<std::int32_t> tokens(801, 65);
  for (std::size_t i = 0; i < tokens.size(); i += 100) tokens[i] = 256;  // 9 of them, the first is never predicted
  graft::token_file_writer writer(path, {801, 257, 256});
  writer.append(tokens);
  writer.finish();
  graft::token_batch batch, again;
  graft::evaluation_windows all(graft::token_file(path), 8);
  const graft::evaluation_count whole = all.fill(0, all.size(), batch);
  CHECK(whole.tokens == 800);
  CHECK(whole.bytes == 792);

  graft::evaluation_windows few(counting_file(folder / "b.bin", 801), 8, 87, std::vector<std::int32_t>(801, 1));
  REQUIRE(few.size() == 10);  // 80 of at most 87 tokens
  few.fill(0, 10, batch);
  for (std::size_t row = 0; row < 10; ++row) CHECK(batch.inputs[row * 8] == static_cast<std::int32_t>(row * 80));
  few.fill(0, 10, again);
  CHECK(again.inputs == batch.inputs);
  CHECK_ERROR(graft::evaluation_windows(counting_file(folder / "c.bin", 1), 8), "c.bin", "at least 2", "found 1");
  graft::evaluation_windows wrong(counting_file(folder / "d.bin", 300), 8);
  CHECK_ERROR(wrong.fill(0, wrong.size(), batch), "d.bin", "from 0 to 256", "found 257");
}

}  // namespace batch_tests
