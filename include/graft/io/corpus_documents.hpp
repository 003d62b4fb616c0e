// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The documents of a domain, one after another. A file is a document; a larger one than the limit is cut at a
// blank line, or a newline, so that one huge file can be split too and memory does not grow with the files.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <graft/io/domain.hpp>
#include <graft/io/token_file.hpp>
#include <graft/io/tokenizer.hpp>
#include <graft/io/troff.hpp>

namespace graft::detail {

// Where the first document of text ends: at most `limit` bytes on, after a blank line, else after a newline, in the
// second half of that, else between two characters. Requires: text.size() >= limit >= 8.
inline std::size_t document_end(std::string_view text, std::size_t limit) {
  const std::string_view window = text.substr(0, limit);
  if (const std::size_t at = window.rfind("\n\n"); at != std::string_view::npos && at + 2 >= limit / 2) return at + 2;
  if (const std::size_t at = window.rfind('\n'); at != std::string_view::npos && at + 1 >= limit / 2) return at + 1;
  for (std::size_t end = limit; end + 4 > limit; --end)
    if (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80) return end;
  return limit;
}

// The reader of a domain's documents. Its buffers are reused from file to file and pass to pass.
template <tokenizer Tokenizer>
class document_reader {
 public:
  document_reader(const domain_listing& listing, index_t document_bytes, const Tokenizer& tokenizer)
      : listing_(listing), limit_(static_cast<std::size_t>(document_bytes)), tokenizer_(tokenizer), chunk_(1 << 16) {}

  // The size above which a file is cut, for the passes that follow.
  void cut_at(index_t document_bytes) { limit_ = static_cast<std::size_t>(document_bytes); }

  // Calls take(hash, tokens, text_bytes) for each document in order. hash depends on the content alone; tokens end
  // with end_of_text. A document of nothing but white space is none.
  template <class Take>
  void each(Take&& take) {
    stubs_ = blank_ = 0;
    for (const source_file& file : listing_.files) {
      const index_t stubs_before = stubs_;
      bool has_text = false;
      const auto note = [&](std::uint64_t hash, std::span<const std::int32_t> tokens, index_t text_bytes) {
        has_text = true;
        take(hash, tokens, text_bytes);
      };
      listing_.kind == source_kind::tokens ? token_documents(file, note) : text_documents(file, note);
      blank_ += !has_text && stubs_ == stubs_before;
    }
  }

  // Of the last pass: pages that only include another, and other files without any document.
  index_t stubs() const { return stubs_; }
  index_t blank() const { return blank_; }

 private:
  template <class Take>
  void text_documents(const source_file& file, Take& take) {
    text_reader reader(file.path);
    troff_filter filter;
    pending_.clear();
    line_.clear();
    while (const std::size_t count = reader.read(chunk_.data(), chunk_.size())) {
      const std::string_view piece(chunk_.data(), count);
      if (file.troff) {
        filter_lines(piece, filter);
      } else {
        pending_.append(piece);
      }
      std::size_t begin = 0;
      while (pending_.size() - begin > limit_) {
        const std::string_view rest = std::string_view(pending_).substr(begin);
        const std::size_t end = document_end(rest, limit_);
        text_document(rest.substr(0, end), take);
        begin += end;
      }
      pending_.erase(0, begin);
    }
    if (file.troff) {
      if (!line_.empty()) filter.line(line_, pending_);
      filter.finish(pending_);
      stubs_ += filter.is_stub();
    }
    for (std::string_view rest = pending_; !rest.empty();) {
      const std::size_t end = rest.size() > limit_ ? document_end(rest, limit_) : rest.size();
      text_document(rest.substr(0, end), take);
      rest.remove_prefix(end);
    }
  }

  void filter_lines(std::string_view piece, troff_filter& filter) {
    while (!piece.empty()) {
      const std::size_t newline = piece.find('\n');
      line_.append(piece.substr(0, newline));
      if (newline == std::string_view::npos && line_.size() < (1u << 20)) return;
      filter.line(line_, pending_);
      line_.clear();
      piece.remove_prefix(newline == std::string_view::npos ? piece.size() : newline + 1);
    }
  }

  template <class Take>
  void text_document(std::string_view text, Take& take) {
    if (text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos) return;
    tokens_.clear();
    tokenizer_.encode(text, tokens_);
    tokens_.push_back(tokenizer_.end_of_text());
    take(content_hash().add(text).value(), std::span<const std::int32_t>(tokens_), static_cast<index_t>(text.size()));
  }

  template <class Take>
  void token_documents(const source_file& file, Take& take) {
    const token_file source(file.path, tokenizer_.ids());
    GRAFT_CHECK(source.end_of_text() < 0 || source.end_of_text() == tokenizer_.end_of_text(), source.path(),
                ": expected documents to end with id ", tokenizer_.end_of_text(), ", the header says ",
                source.end_of_text());
    tokens_.clear();
    token_piece_.resize(1 << 14);
    for (index_t at = 0; at < source.size();) {
      const auto count = std::min<index_t>(source.size() - at, static_cast<index_t>(token_piece_.size()));
      source.read(at, std::span(token_piece_).first(static_cast<std::size_t>(count)));
      for (index_t i = 0; i < count; ++i) {
        const std::int32_t token = token_piece_[static_cast<std::size_t>(i)];
        if (token != tokenizer_.end_of_text()) tokens_.push_back(token);
        if (token == tokenizer_.end_of_text() || tokens_.size() >= limit_) token_document(take);
      }
      at += count;
    }
    token_document(take);
  }

  template <class Take>
  void token_document(Take& take) {
    if (tokens_.empty()) return;
    index_t text_bytes = 0;
    for (const std::int32_t token : tokens_) text_bytes += tokenizer_.byte_length(token);
    const std::string_view content(reinterpret_cast<const char*>(tokens_.data()),
                                   tokens_.size() * sizeof(std::int32_t));
    const std::uint64_t hash = content_hash().add(content).value();
    tokens_.push_back(tokenizer_.end_of_text());
    take(hash, std::span<const std::int32_t>(tokens_), text_bytes);
    tokens_.clear();
  }

  const domain_listing& listing_;
  std::size_t limit_;
  const Tokenizer& tokenizer_;
  std::vector<char> chunk_;
  std::string pending_, line_;
  std::vector<std::int32_t> tokens_, token_piece_;
  index_t stubs_ = 0, blank_ = 0;
};

}  // namespace graft::detail
