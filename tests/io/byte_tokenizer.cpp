// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The byte tokenizer, and its laws as a tokenizer.

#include "catch.hpp"

#include <numeric>
#include <string>
#include <vector>

#include <graft/io/byte_tokenizer.hpp>

#include "io/io_test.hpp"

namespace byte_tokenizer_tests {

TEST_CASE("byte_tokenizer: every byte goes in and comes back", "[io][tokenizer]") {
  std::string text(256, '\0');
  std::iota(text.begin(), text.end(), '\0');
  text += "déjà vu";
  const graft::byte_tokenizer tokenizer;
  std::vector<std::int32_t> tokens{7};
  tokenizer.encode(text, tokens);
  REQUIRE(tokens.size() == text.size() + 1);
  CHECK(tokens[0] == 7);  // encode appends
  CHECK(tokens[1] == 0);
  CHECK(tokens[256] == 255);
  tokens.erase(tokens.begin());
  tokens.push_back(tokenizer.end_of_text());
  CHECK(tokenizer.decode(tokens) == text);
}

TEST_CASE("byte_tokenizer: byte lengths add up and end of text has none", "[io][tokenizer]") {
  const graft::byte_tokenizer tokenizer;
  const std::vector<std::int32_t> lengths = graft::byte_lengths(tokenizer);
  REQUIRE(lengths.size() == 257);
  CHECK(std::accumulate(lengths.begin(), lengths.end(), 0) == 256);
  CHECK(lengths[256] == 0);
  CHECK(tokenizer.end_of_text() == 256);
  CHECK(graft::byte_tokenizer::padded_vocabulary == 288);
}

TEST_CASE("byte_tokenizer: an id of the padding is refused", "[io][tokenizer]") {
  CHECK_ERROR(graft::byte_tokenizer::decode(std::vector<std::int32_t>{65, 257}), "from 0 to 256", "257", "position 1");
  CHECK_ERROR(graft::byte_tokenizer::decode(std::vector<std::int32_t>{-1}), "-1", "position 0");
}

}  // namespace byte_tokenizer_tests
