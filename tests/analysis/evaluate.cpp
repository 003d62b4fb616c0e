// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Evaluation against sums by hand: bits per byte, what counts as a byte, and that padding is neither scored nor routed.

#include "catch.hpp"

#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <numbers>
#include <numeric>
#include <string>
#include <vector>

#include <graft/analysis/evaluate.hpp>
#include <graft/backend/cpu/cpu.hpp>
#include <graft/io/token_file_writer.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/top_k.hpp>

namespace evaluate_tests {

using namespace graft;

namespace {

using model_type = moe_transformer<top_k<2>, no_balancer, routed, compute<fp64, cpu>>;
constexpr transformer_shape shape{.vocabulary = 288,
                                  .width = 16,
                                  .blocks = 2,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 8,
                                  .hidden = 24,
                                  .positions = 8,
                                  .experts = 3};

// Bytes with the end of a text every 7 tokens.
std::vector<std::int32_t> some_tokens(std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i)
    tokens[i] = i % 7 == 6 ? byte_tokenizer::end_of_text() : static_cast<std::int32_t>(i * 37 % 251);
  return tokens;
}

token_file written(const std::filesystem::path& path, const std::vector<std::int32_t>& tokens) {
  token_file_writer out(
      path, {static_cast<index_t>(tokens.size()), byte_tokenizer::ids(), byte_tokenizer::end_of_text(), -1});
  out.append(tokens);
  out.finish();
  return token_file(path);
}

}  // namespace

TEST_CASE("evaluate: sums, bytes and routing by hand", "[analysis]") {
  const auto folder = std::filesystem::temp_directory_path() / ("graft-evaluate-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const std::vector<std::int32_t> tokens =
      some_tokens(1 + 8 * 5 + 3);  // five windows of 8 predicted tokens and one of 3
  context<cpu> context;
  model_type model(context, shape);
  model.initialize(3);

  evaluation_windows windows(written(folder / "tokens.bin", tokens), 8);
  const evaluation result = evaluate(model, windows, 2);

  double nats = 0;
  index_t bytes = 0;
  for (std::size_t begin = 0; begin + 1 < tokens.size(); begin += 8) {
    const std::size_t length = std::min<std::size_t>(8, tokens.size() - 1 - begin);
    std::vector<double> logits(length * 288);
    model.logits(matrix_view<double>(logits.data(), length, 288),
                 matrix_view<const std::int32_t>(tokens.data() + begin, 1, length));
    for (std::size_t i = 0; i < length; ++i) {
      const auto target = static_cast<std::size_t>(tokens[begin + i + 1]);
      double sum = 0;
      for (std::size_t v = 0; v < 288; ++v) sum += std::exp(logits[i * 288 + v]);
      nats += std::log(sum) - logits[i * 288 + target];
      bytes += target < 256 ? 1 : 0;
    }
  }
  // 43 terms of about 6 nats, each right to a few hundred roundings.
  CHECK(std::abs(result.nats - nats) < 1e-10);
  CHECK(result.tokens == 43);
  CHECK(result.bytes == bytes);
  CHECK(std::abs(result.bits_per_byte() - nats / std::numbers::ln2 / static_cast<double>(bytes)) < 1e-11);
  // Every token that is in a window fills two slots in each of two layers; there are no others.
  const std::vector<double> counts = all_counts(result.load);
  REQUIRE(counts.size() == 6);
  CHECK(std::accumulate(counts.begin(), counts.end(), 0.0) == 43 * 2 * 2);

  evaluation_windows again(token_file(folder / "tokens.bin"), 8);
  CHECK(std::abs(evaluate(model, again, 1).nats - result.nats) < 1e-10);
  evaluation_windows wide(token_file(folder / "tokens.bin"), 9);
  CHECK_THROWS_AS(evaluate(model, wide, 1), graft::error);
  evaluation_windows once_more(token_file(folder / "tokens.bin"), 8);
  CHECK_THROWS_AS(evaluate(model, once_more, 0), graft::error);
  std::filesystem::remove_all(folder);
}

}  // namespace evaluate_tests
