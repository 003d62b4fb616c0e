// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The byte tokenizer: a token is a byte. Ids 0 to 255 are the bytes, 256 is <|endoftext|>, and nothing is
// trained, so that any text in any language goes in and comes back out unchanged.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>
#include <graft/io/tokenizer.hpp>

namespace graft {

struct byte_tokenizer {
  // Rows of the embedding in models made for this tokenizer: ids() padded to a multiple of 32, which products
  // run well at. Ids from ids() on never occur.
  static constexpr index_t padded_vocabulary = 288;

  static std::string name() { return "byte"; }
  static constexpr index_t ids() { return 257; }
  static constexpr std::int32_t end_of_text() { return 256; }
  static constexpr std::int32_t byte_length(std::int32_t id) { return id >= 0 && id < 256 ? 1 : 0; }

  // Appends the ids of text to tokens.
  static void encode(std::string_view text, std::vector<std::int32_t>& tokens) {
    const std::size_t first = tokens.size();
    tokens.resize(first + text.size());
    for (std::size_t i = 0; i < text.size(); ++i) tokens[first + i] = static_cast<unsigned char>(text[i]);
  }

  // The text of tokens. <|endoftext|> is no text and adds nothing.
  // Errors: an id that is neither a byte nor <|endoftext|>, with its place.
  static std::string decode(std::span<const std::int32_t> tokens) {
    std::string text;
    text.reserve(tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      GRAFT_CHECK(tokens[i] >= 0 && tokens[i] < ids(), "byte_tokenizer: expected ids from 0 to ", ids() - 1, ", got ",
                  tokens[i], " at position ", i);
      if (tokens[i] < 256) text.push_back(static_cast<char>(tokens[i]));
    }
    return text;
  }
};

static_assert(tokenizer<byte_tokenizer>);

}  // namespace graft
