// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a corpus needs of a tokenizer: text in, ids out, and how many bytes of text each id stands for, so
// that losses of different tokenizers can be given in bits per byte.

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <graft/core/host_device.hpp>

namespace graft {

template <class T>
concept names_itself = requires(const T& tokenizer) {
  { tokenizer.name() } -> std::convertible_to<std::string>;
};

template <class T>
concept counts_its_ids = requires(const T& tokenizer) {
  { tokenizer.ids() } -> std::convertible_to<index_t>;
  { tokenizer.end_of_text() } -> std::convertible_to<std::int32_t>;
};

template <class T>
concept encodes_text = requires(const T& tokenizer, std::string_view text, std::vector<std::int32_t>& tokens) {
  tokenizer.encode(text, tokens);
};

template <class T>
concept knows_byte_lengths = requires(const T& tokenizer, std::int32_t id) {
  { tokenizer.byte_length(id) } -> std::convertible_to<std::int32_t>;
};

// Minimal definition: name(), ids(), end_of_text(), encode(text, tokens), byte_length(id).
// Models: byte_tokenizer.
// Laws: encode appends ids in [0, ids()) and never end_of_text(); the byte lengths of what it appends add up to
// text.size(); byte_length(end_of_text()) is 0.
template <class T>
concept tokenizer = names_itself<T> && counts_its_ids<T> && encodes_text<T> && knows_byte_lengths<T>;

// The bytes of text that each id stands for, as a table.
template <tokenizer Tokenizer>
std::vector<std::int32_t> byte_lengths(const Tokenizer& source) {
  std::vector<std::int32_t> lengths(static_cast<std::size_t>(source.ids()));
  for (std::size_t id = 0; id < lengths.size(); ++id) lengths[id] = source.byte_length(static_cast<std::int32_t>(id));
  return lengths;
}

}  // namespace graft
