// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Corpora: the split, what max_bytes keeps, reuse, and the sentence of each error.

#include "catch.hpp"

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <graft/io/corpus.hpp>

#include "io/text_test.hpp"

namespace corpus_tests {

namespace fs = std::filesystem;

namespace {

// The documents of a token file.
std::vector<std::string> documents(const graft::corpus_part& part) {
  const graft::token_file file(part.path, 257);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.size()));
  file.read(0, tokens);
  std::vector<std::string> result;
  std::string text;
  for (const std::int32_t token : tokens) {
    if (token < 256) {
      text += static_cast<char>(token);
    } else {
      result.push_back(std::move(text));
      text.clear();
    }
  }
  CHECK(text.empty());  // every document has its end
  return result;
}

void write_documents(const io_test::scratch_folder& folder, const std::string& name, int count, std::size_t bytes) {
  fs::create_directories(folder / name);
  for (int i = 0; i < count; ++i)
    io_test::write_bytes(folder / name / (std::to_string(1000 + i) + ".txt"),
                         io_test::some_text(static_cast<std::uint64_t>(i), bytes));
}

}  // namespace

TEST_CASE("prepare_corpus: every document is on one side, and about the fraction is held out", "[io][corpus]") {
  const io_test::scratch_folder folder;
  write_documents(folder, "text", 400, 3000);
  const graft::corpus data = graft::prepare_corpus({"d", folder / "text"}, folder / "out");
  const auto train = documents(data.train), held_out = documents(data.held_out);
  std::multiset<std::string> found(train.begin(), train.end()), wanted;
  found.insert(held_out.begin(), held_out.end());
  for (int i = 0; i < 400; ++i) wanted.insert(io_test::some_text(static_cast<std::uint64_t>(i), 3000));
  CHECK((found == wanted));  // in brackets: Catch would print them
  CHECK(data.train.documents == static_cast<graft::index_t>(train.size()));
  CHECK(data.held_out.documents == static_cast<graft::index_t>(held_out.size()));
  CHECK(data.train.bytes + data.held_out.bytes == data.source.bytes);
  CHECK(data.train.tokens == data.train.bytes + data.train.documents);
  CHECK(graft::token_file(data.train.path).text_bytes() == data.train.bytes);
  // The nearest to 5 % that whole documents allow: at most half a document of 0.25 % off, where documents differ
  // little.
  const double share = static_cast<double>(data.held_out.bytes) / static_cast<double>(data.source.bytes);
  CHECK(share > 0.045);
  CHECK(share < 0.055);
}

TEST_CASE("prepare_corpus: the split is a function of the content", "[io][corpus]") {
  const io_test::scratch_folder folder;
  write_documents(folder, "text", 60, 2000);
  const graft::corpus first = graft::prepare_corpus({"d", folder / "text"}, folder / "first");
  // The same documents under other names, in another order, and gzip.
  fs::create_directories(folder / "renamed/inner");
  for (int i = 0; i < 60; ++i)
    io_test::append_gzip(folder / "renamed" / (i % 2 ? "inner" : ".") / ("x" + std::to_string(999 - i)),
                         io_test::some_text(static_cast<std::uint64_t>(i), 2000));
  const graft::corpus second = graft::prepare_corpus({"other", folder / "renamed"}, folder / "second");
  const auto set = [](const std::vector<std::string>& list) { return std::set<std::string>(list.begin(), list.end()); };
  CHECK(!documents(first.held_out).empty());
  CHECK((set(documents(first.held_out)) == set(documents(second.held_out))));
  CHECK((set(documents(first.train)) == set(documents(second.train))));
  CHECK(first.source.documents == 60);
}

TEST_CASE("prepare_corpus: a large file is cut at blank lines and nothing is lost", "[io][corpus]") {
  const io_test::scratch_folder folder;
  const std::string text = io_test::some_text(5, 3'000'000);
  io_test::write_bytes(folder / "big.txt", text);
  const graft::corpus data = graft::prepare_corpus({"d", folder / "big.txt"}, folder / "out");
  const auto train = documents(data.train), held_out = documents(data.held_out);
  CHECK(train.size() + held_out.size() >= 3'000'000 / 65536);
  // The documents of both sides, merged in the order of the text, are the text.
  std::size_t at = 0, t = 0, h = 0;
  while (at < text.size() && (t < train.size() || h < held_out.size())) {
    const bool from_train = t < train.size() && text.compare(at, train[t].size(), train[t]) == 0;
    const std::string& piece = from_train ? train[t++] : held_out[h++];
    REQUIRE(text.compare(at, piece.size(), piece) == 0);
    at += piece.size();
    CHECK(piece.size() <= 65536);
    if (at < text.size()) CHECK(piece.ends_with("\n\n"));
  }
  CHECK(at == text.size());
}

TEST_CASE("document_end: blank line, newline, character", "[io][corpus]") {
  using graft::detail::document_end;
  CHECK(document_end("aaa\n\nbbbb\ncccc", 12) == 10);
  CHECK(document_end("aaaaa\n\nbbbbccc", 12) == 7);
  CHECK(document_end("aaa\nbbbbbbbbbbb", 12) == 12);
  CHECK(document_end("aaaaaaaaaaaéb", 12) == 11);          // within é
  CHECK(document_end(std::string(20, '\xBF'), 12) == 12);  // no character at all
}

TEST_CASE("prepare_corpus: max_bytes keeps a spread of documents and the sides apart", "[io][corpus]") {
  const io_test::scratch_folder folder;
  write_documents(folder, "text", 300, 3000);
  const auto prepare = [&](graft::index_t max_bytes) {
    graft::corpus_options options;
    options.max_bytes = max_bytes;
    return graft::prepare_corpus({"d", folder / "text"}, folder / ("out" + std::to_string(max_bytes)), options);
  };
  const graft::corpus all = prepare(0), half = prepare(450'000), little = prepare(60'000);
  for (const auto* part : {&half, &little}) {
    const graft::index_t most = part == &half ? 450'000 : 60'000;
    const graft::index_t kept = part->train.bytes + part->held_out.bytes;
    CHECK(kept <= most);
    CHECK(kept > most - 2 * 3100);  // less than a document short on each side
    CHECK(part->source.bytes == all.source.bytes);
    const auto held_out = documents(all.held_out), train = documents(all.train);
    const std::set<std::string> all_held_out(held_out.begin(), held_out.end()), all_train(train.begin(), train.end());
    for (const auto& document : documents(part->held_out)) CHECK(all_held_out.contains(document));
    for (const auto& document : documents(part->train)) CHECK(all_train.contains(document));
  }
  // Half of the documents, from both halves of the source: 4 standard deviations of a fair draw of 150 around 75
  // are 24.
  const auto kept = documents(half.train);
  const std::set<std::string> kept_set(kept.begin(), kept.end());
  int from_first_half = 0;
  for (int i = 0; i < 150; ++i)
    from_first_half += kept_set.contains(io_test::some_text(static_cast<std::uint64_t>(i), 3000));
  CHECK(from_first_half > 75 - 24 - 8);
  CHECK(from_first_half < 75 + 24);
}

TEST_CASE("prepare_corpus: a second run reuses the files unless something changed", "[io][corpus]") {
  const io_test::scratch_folder folder;
  write_documents(folder, "text", 40, 2000);
  const graft::domain_source source{"d", folder / "text"};
  const graft::corpus first = graft::prepare_corpus(source, folder / "out");
  CHECK(!first.reused);
  const auto time = fs::last_write_time(first.train.path);
  const graft::corpus second = graft::prepare_corpus(source, folder / "out");
  CHECK(second.reused);
  CHECK(fs::last_write_time(first.train.path) == time);
  CHECK(graft::describe(first) == graft::describe(second));
  CHECK(second.held_out.tokens == first.held_out.tokens);

  SECTION("another option") {
    graft::corpus_options options;
    options.held_out_fraction = 0.2;
    CHECK(!graft::prepare_corpus(source, folder / "out", options).reused);
    CHECK(!graft::prepare_corpus(source, folder / "out").reused);
  }
  SECTION("another file") {
    io_test::write_bytes(folder / "text/new.txt", io_test::some_text(77, 2000));
    const graft::corpus third = graft::prepare_corpus(source, folder / "out");
    CHECK(!third.reused);
    CHECK(third.files == 41);
  }
  SECTION("a damaged token file") {
    io_test::write_bytes(first.held_out.path, "GRAFTTOK");
    CHECK(!graft::prepare_corpus(source, folder / "out").reused);
    CHECK(documents(first.held_out).size() == static_cast<std::size_t>(first.held_out.documents));
  }
}

TEST_CASE("prepare_corpus: manual pages become text and inclusions are counted", "[io][corpus]") {
  const io_test::scratch_folder folder;
  fs::create_directories(folder / "man");
  for (int i = 0; i < 6; ++i)
    io_test::append_gzip(folder / ("man/page" + std::to_string(i) + ".1.gz"),
                         ".TH p 1\n.SH NAME\npage\\-" + std::to_string(i) + "\n");
  io_test::write_bytes(folder / "man/link.1", ".so man1/page1.1\n");
  io_test::write_bytes(folder / "man/void.1", ".TH void 1\n");
  const graft::corpus data = graft::prepare_corpus({"d", folder / "man"}, folder / "out");
  CHECK(data.stubs == 1);
  CHECK(data.blank == 1);
  CHECK(data.source.documents == 6);
  CHECK(documents(data.held_out).at(0).starts_with("NAME\npage-"));
  CHECK(graft::describe(data).find("1 pages that only include another, 1 without text") != std::string::npos);
}

TEST_CASE("prepare_corpus: token files are documents too", "[io][corpus]") {
  const io_test::scratch_folder folder;
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < 30; ++i) {
    graft::byte_tokenizer::encode(io_test::some_text(static_cast<std::uint64_t>(i), 500), tokens);
    tokens.push_back(256);
  }
  tokens.insert(tokens.end(), {104, 105});  // a last document without its end
  graft::token_file_writer writer(folder / "a.bin", {static_cast<graft::index_t>(tokens.size()), 257, 256});
  writer.append(tokens);
  writer.finish();
  const graft::corpus data = graft::prepare_corpus({"d", folder / "a.bin"}, folder / "out");
  CHECK(data.source.documents == 31);
  std::multiset<std::string> found;
  for (const auto* part : {&data.train, &data.held_out})
    for (auto& document : documents(*part)) found.insert(document);
  CHECK(found.contains("hi"));
  for (int i = 0; i < 30; ++i) CHECK(found.count(io_test::some_text(static_cast<std::uint64_t>(i), 500)) == 1);

  graft::token_file_writer other(folder / "b.bin", {2, 50257, 50256});
  other.append(std::vector<std::int32_t>{1, 50256});
  other.finish();
  CHECK_ERROR(graft::prepare_corpus({"d", folder / "b.bin"}, folder / "out2"), "b.bin", "at most 257", "50257");
}

TEST_CASE("prepare_corpus: bad input and bad options", "[io][corpus]") {
  const io_test::scratch_folder folder;
  io_test::write_bytes(folder / "one.txt", "a single short document\n");
  CHECK_ERROR(graft::prepare_corpus({"d", folder / "one.txt"}, folder / "out"), "one.txt",
              "at least two different documents", "found 1");
  io_test::write_bytes(folder / "white.txt", " \n\n \n");
  CHECK_ERROR(graft::prepare_corpus({"d", folder / "white.txt"}, folder / "out"), "white.txt", "expected text",
              "without any");
  CHECK_ERROR(graft::prepare_corpus({"d", folder / "none"}, folder / "out"), "none", "found nothing");
  graft::corpus_options options;
  options.held_out_fraction = 0.9;
  CHECK_ERROR(graft::prepare_corpus({"d", folder / "one.txt"}, folder / "out", options), "held_out_fraction", "0.9");
  options.held_out_fraction = 0;
  const graft::corpus data = graft::prepare_corpus({"d", folder / "one.txt"}, folder / "out", options);
  CHECK(data.held_out.tokens == 0);
  CHECK(documents(data.train) == std::vector<std::string>{"a single short document\n"});

  // Damage that shows late: nothing half-written stays.
  io_test::append_gzip(folder / "late.gz", io_test::some_text(9, 400000));
  const std::string bytes = io_test::read_bytes(folder / "late.gz");
  io_test::write_bytes(folder / "late.gz", bytes.substr(0, bytes.size() - 4));
  CHECK_ERROR(graft::prepare_corpus({"late", folder / "late.gz"}, folder / "late"), "late.gz", "ends too early");
  CHECK(fs::is_empty(folder / "late"));
}

}  // namespace corpus_tests
