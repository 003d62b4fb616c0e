// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The byte tokenizer as Hugging Face knows it: a byte-level BPE without merges, whose 256 tokens are the bytes in their
// order, and <|endoftext|> as 256. So models of bytes can be used where tokenizer.json is read.

#include <string>

#include <nlohmann/json.hpp>

#include <graft/core/host_device.hpp>

namespace graft {

namespace detail {

// The character that stands for a byte in byte-level vocabularies, in UTF-8: printable Latin-1 stands for itself, the
// other bytes in their order are the characters from U+0100 on.
// Source: Radford et al., GPT-2 (2019), bytes_to_unicode.
inline std::string byte_character(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  };
  int character = byte;
  if (!printable(byte)) {
    character = 0x100;
    for (int other = 0; other < byte; ++other) character += printable(other) ? 0 : 1;
  }
  if (character < 0x80) return std::string(1, static_cast<char>(character));
  return {static_cast<char>(0xc0 | (character >> 6)), static_cast<char>(0x80 | (character & 0x3f))};
}

inline constexpr const char* end_of_text_name = "<|endoftext|>";

}  // namespace detail

// Contents of tokenizer.json. Text that spells <|endoftext|> becomes that token there, as with every such file.
inline nlohmann::json byte_tokenizer_json() {
  using nlohmann::json;
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  json vocabulary = json::object();
  for (int byte = 0; byte < 256; ++byte) vocabulary[detail::byte_character(byte)] = byte;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array({{{"id", 256},
                                         {"content", detail::end_of_text_name},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false},
                                         {"special", true}}})},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocabulary},
            {"merges", json::array()}}}};
}

// Contents of tokenizer_config.json.
inline nlohmann::json byte_tokenizer_config_json(index_t positions) {
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"eos_token", detail::end_of_text_name},
          {"model_max_length", positions},
          {"add_prefix_space", false},
          {"clean_up_tokenization_spaces", false}};
}

}  // namespace graft
