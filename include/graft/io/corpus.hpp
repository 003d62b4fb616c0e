// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Preparing a domain for training: its documents, split into those to train on and those held out, as two token
// files that batches are read from.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/io/byte_tokenizer.hpp>
#include <graft/io/corpus_documents.hpp>
#include <graft/io/domain.hpp>
#include <graft/io/token_file.hpp>
#include <graft/io/token_file_writer.hpp>
#include <graft/io/tokenizer.hpp>

namespace graft {

struct corpus_options {
  double held_out_fraction = 0.05;  // of the bytes; 0 holds nothing out
  index_t max_bytes = 0;            // of text to keep, both parts together; 0 keeps all
  index_t document_bytes =
      65536;  // longer files are cut; halved, down to 1 KiB, while there are fewer than 32 documents
};

struct corpus_part {
  std::filesystem::path path;  // a token file, each document followed by <|endoftext|>
  index_t tokens = 0;
  index_t bytes = 0;  // of text
  index_t documents = 0;
};

struct corpus {
  std::string name;
  corpus_part train, held_out;
  corpus_part source;  // all that the domain has, before max_bytes; its path is the domain's
  index_t files = 0, binaries = 0, duplicates = 0, empty = 0, dangling = 0, stubs = 0, blank = 0;
  bool reused = false;  // an earlier run had prepared the same source with the same options
};

// One line for a person: what was found and what was left out.
inline std::string describe(const corpus& data) {
  std::ostringstream line;
  line << data.name << ": " << data.train.tokens << " tokens to train on and " << data.held_out.tokens
       << " held out, of " << data.source.bytes << " bytes in " << data.source.documents << " documents and "
       << data.files << " files";
  const std::pair<index_t, const char*> skipped[] = {{data.binaries, "that are not text"},
                                                     {data.duplicates, "duplicates"},
                                                     {data.empty, "empty"},
                                                     {data.dangling, "links to nothing"},
                                                     {data.stubs, "pages that only include another"},
                                                     {data.blank, "without text"}};
  const char* separator = " (left out: ";
  for (const auto& [count, what] : skipped)
    if (count > 0) line << std::exchange(separator, ", ") << count << ' ' << what;
  if (separator[0] == ',') line << ')';
  return line.str();
}

namespace detail {

// Bytes, tokens and documents by the high bits of the documents' hashes: enough to choose which to keep in memory that
// does not grow with the corpus.
class hash_histogram {
 public:
  static constexpr std::size_t size = 1 << 16;
  struct bucket {
    index_t bytes = 0, tokens = 0, documents = 0;
  };
  static std::size_t of(std::uint64_t hash) { return static_cast<std::size_t>(hash >> 48); }

  hash_histogram() : buckets_(size) {}
  void add(std::uint64_t hash, index_t bytes, index_t tokens) {
    bucket& b = buckets_[of(hash)];
    b.bytes += bytes, b.tokens += tokens, ++b.documents;
  }
  bucket total(std::size_t begin, std::size_t end) const {
    bucket sum;
    for (std::size_t i = begin; i < end; ++i)
      sum.bytes += buckets_[i].bytes, sum.tokens += buckets_[i].tokens, sum.documents += buckets_[i].documents;
    return sum;
  }
  // The end of the range [0, end) whose bytes come nearest to wanted, among those that hold a document and, unless
  // `all` may be taken, leave one in [end, limit). 0 when there is no such range.
  std::size_t nearest_prefix(double wanted, std::size_t limit, bool all) const {
    const index_t documents = total(0, limit).documents;
    std::size_t best = 0;
    double best_distance = 0;
    bucket sum;
    for (std::size_t i = 0; i < limit; ++i) {
      if (buckets_[i].documents == 0) continue;
      sum.bytes += buckets_[i].bytes, sum.documents += buckets_[i].documents;
      if (sum.documents == documents && !all) break;
      const double distance = std::abs(static_cast<double>(sum.bytes) - wanted);
      if (best == 0 || distance < best_distance) best = i + 1, best_distance = distance;
    }
    return best;
  }
  // The begin of the longest range [begin, size) of at most `most` bytes, at least one document, down to `limit`.
  std::size_t suffix(index_t most, std::size_t limit) const {
    bucket sum;
    std::size_t begin = size;
    for (std::size_t i = size; i > limit; --i) {
      sum.bytes += buckets_[i - 1].bytes;
      if (sum.bytes > most && sum.documents > 0) break;
      sum.documents += buckets_[i - 1].documents;
      begin = i - 1;
    }
    return begin;
  }

 private:
  std::vector<bucket> buckets_;
};

// What two runs must have in common for the second to use what the first has prepared.
inline std::string corpus_key(const domain_source& source, const domain_listing& walk, const corpus_options& options,
                              const std::string& tokenizer_name) {
  content_hash hash;
  hash.add("corpus 1")  // raise the number when the text of documents changes
      .add(tokenizer_name)
      .add_number(static_cast<std::uint64_t>(source.kind))
      .add_number(static_cast<std::uint64_t>(source.filter));
  hash.add(source.path.string())
      .add_number(static_cast<std::uint64_t>(options.max_bytes))
      .add_number(static_cast<std::uint64_t>(options.document_bytes));
  hash.add_number(static_cast<std::uint64_t>(std::llround(options.held_out_fraction * 1e12)));
  for (const source_file& file : walk.files)
    hash.add(file.relative)
        .add_number(static_cast<std::uint64_t>(file.size))
        .add_number(static_cast<std::uint64_t>(file.modified));
  std::ostringstream text;
  text << std::hex << hash.value();
  return text.str();
}

// The manifest: a line "graft-corpus KEY", then lines "name number".
inline std::vector<std::pair<const char*, index_t*>> corpus_numbers(corpus& data) {
  return {{"train.tokens", &data.train.tokens},
          {"train.bytes", &data.train.bytes},
          {"train.documents", &data.train.documents},
          {"held_out.tokens", &data.held_out.tokens},
          {"held_out.bytes", &data.held_out.bytes},
          {"held_out.documents", &data.held_out.documents},
          {"source.tokens", &data.source.tokens},
          {"source.bytes", &data.source.bytes},
          {"source.documents", &data.source.documents},
          {"files", &data.files},
          {"binaries", &data.binaries},
          {"duplicates", &data.duplicates},
          {"empty", &data.empty},
          {"dangling", &data.dangling},
          {"stubs", &data.stubs},
          {"blank", &data.blank}};
}

// Whether the manifest and both token files are those of this key. Anything unusual means no: they are made again.
inline bool load_corpus(const std::filesystem::path& manifest, const std::string& key, corpus& data) {
  std::ifstream stream(manifest);
  std::string word, found_key;
  if (!(stream >> word >> found_key) || word != "graft-corpus" || found_key != key) return false;
  for (const auto& [name, number] : corpus_numbers(data))
    if (!(stream >> word >> *number) || word != name) return false;
  for (const corpus_part* part : {&data.train, &data.held_out}) {
    std::error_code code;
    if (!std::filesystem::is_regular_file(part->path, code)) return false;
    try {
      if (token_file(part->path).size() != part->tokens) return false;
    } catch (const error&) {
      return false;  // damaged since: made again
    }
  }
  return true;
}

}  // namespace detail

// Writes NAME.train.bin, NAME.held_out.bin and the manifest NAME.corpus in `folder`, or finds them there from an
// earlier run (same paths, sizes, times and options).
//
// The split is by document and depends on the documents' contents alone, not on their names or order: a document's
// place is a 64-bit hash of its content, those lowest in hash are held out, as many as come nearest to
// held_out_fraction of the bytes, and at least one document on each side. max_bytes takes train documents from the
// other end of the hashes, so they are spread over the whole source, and held-out ones from the held-out ones: a
// document that is held out with one max_bytes is never trained on with another.
//
// Order: deterministic. Documents keep the order of the files' relative paths.
// Cost: the source is read twice (one of a few documents up to eight times), in memory that does not depend on its size
// (about 6 MiB, and the list of files). Errors: those of list_domain; fewer than two different documents where some are
// to be held out; reading; a full disk. Nothing half-written stays.
template <tokenizer Tokenizer = byte_tokenizer>
corpus prepare_corpus(const domain_source& source, const std::filesystem::path& folder,
                      const corpus_options& options = {}, const Tokenizer& tokenizer = {}) {
  const std::string place = "domain '" + source.name + "': " + source.path.string();
  GRAFT_CHECK(options.held_out_fraction >= 0 && options.held_out_fraction <= 0.5, place,
              ": expected held_out_fraction from 0 to 0.5, got ", options.held_out_fraction);
  GRAFT_CHECK(options.max_bytes >= 0, place, ": expected max_bytes >= 0, got ", options.max_bytes);
  GRAFT_CHECK(options.document_bytes >= 1024 && options.document_bytes <= (1 << 20), place,
              ": expected document_bytes from 1024 to 1048576, got ", options.document_bytes);

  corpus data;
  data.name = source.name;
  const std::string key = detail::corpus_key(source, walk_domain(source), options, tokenizer.name());
  std::filesystem::create_directories(folder);
  data.train.path = folder / (source.name + ".train.bin");
  data.held_out.path = folder / (source.name + ".held_out.bin");
  data.source.path = source.path;
  const std::filesystem::path manifest = folder / (source.name + ".corpus");
  if (corpus earlier = data; detail::load_corpus(manifest, key, earlier)) {
    earlier.reused = true;
    return earlier;
  }

  const domain_listing listing = list_domain(source);
  detail::document_reader<Tokenizer> documents(listing, options.document_bytes, tokenizer);

  // First pass: how much there is, by hash. A small source is cut finer, so that a few percent of it can be held out.
  detail::hash_histogram histogram;
  for (index_t document_bytes = options.document_bytes;; document_bytes /= 2) {
    histogram = {};
    documents.cut_at(document_bytes);
    documents.each([&](std::uint64_t hash, std::span<const std::int32_t> tokens, index_t bytes) {
      histogram.add(hash, bytes, static_cast<index_t>(tokens.size()));
    });
    if (histogram.total(0, histogram.size).documents >= 32 || document_bytes < 2048) break;
  }
  const auto all = histogram.total(0, histogram.size);
  GRAFT_CHECK(all.documents > 0, place, ": expected text, found ", listing.files.size(), " files without any (",
              documents.stubs(), " manual pages that only include another)");

  std::size_t held_out_end = 0, boundary = 0, train_begin = 0;
  if (options.held_out_fraction > 0) {
    boundary =
        histogram.nearest_prefix(options.held_out_fraction * static_cast<double>(all.bytes), histogram.size, false);
    GRAFT_CHECK(boundary > 0, place,
                ": expected at least two different documents, one to train on and one to hold out, found ",
                all.documents, " (", all.bytes, " bytes)");
    held_out_end = boundary;
  }
  train_begin = boundary;
  if (options.max_bytes > 0 && all.bytes > options.max_bytes) {
    const double most = options.held_out_fraction * static_cast<double>(options.max_bytes);
    if (boundary > 0) held_out_end = histogram.nearest_prefix(most, boundary, true);
    const index_t rest = options.max_bytes - histogram.total(0, held_out_end).bytes;
    train_begin = histogram.suffix(rest, boundary);
  }

  // Second pass: write.
  const auto fill = [](corpus_part& part, const detail::hash_histogram::bucket& sum) {
    part.bytes = sum.bytes, part.tokens = sum.tokens, part.documents = sum.documents;
  };
  fill(data.source, all);
  fill(data.train, histogram.total(train_begin, histogram.size));
  fill(data.held_out, histogram.total(0, held_out_end));
  const auto contents = [&](const corpus_part& part) {
    return token_file_contents{part.tokens, tokenizer.ids(), tokenizer.end_of_text(), part.bytes};
  };
  std::filesystem::remove(manifest);
  token_file_writer train(data.train.path, contents(data.train)), held_out(data.held_out.path, contents(data.held_out));
  documents.each([&](std::uint64_t hash, std::span<const std::int32_t> tokens, index_t) {
    const std::size_t bucket = detail::hash_histogram::of(hash);
    if (bucket < held_out_end) held_out.append(tokens);
    if (bucket >= train_begin) train.append(tokens);
  });
  train.finish();
  held_out.finish();

  data.files = static_cast<index_t>(listing.files.size());
  data.binaries = listing.binaries, data.duplicates = listing.duplicates, data.empty = listing.empty;
  data.dangling = listing.dangling, data.stubs = documents.stubs(), data.blank = documents.blank();
  std::ostringstream text;
  text << "graft-corpus " << key << '\n';
  for (const auto& [name, number] : detail::corpus_numbers(data)) text << name << ' ' << *number << '\n';
  write_file(manifest, text.str());
  return data;
}

}  // namespace graft
