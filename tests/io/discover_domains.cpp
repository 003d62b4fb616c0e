// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Discovered domains: every document in one of them, topics apart, ready for prepare_corpus, reuse, threads, errors.

#include "catch.hpp"

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <graft/io/discover_domains.hpp>

#include "io/io_test.hpp"
#include "io/topics.hpp"

namespace discover_domains_tests {

namespace fs = std::filesystem;

namespace {

using graft::index_t;

// The documents of a token file.
std::vector<std::string> documents(const fs::path& path) {
  const graft::token_file file(path, 257);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.size()));
  file.read(0, tokens);
  std::vector<std::string> result(1);
  for (const std::int32_t token : tokens) {
    if (token < 256) {
      result.back() += static_cast<char>(token);
    } else {
      result.emplace_back();
    }
  }
  CHECK(result.back().empty());
  result.pop_back();
  return result;
}

void write_topics(const fs::path& folder, int topics, int each) {
  fs::create_directories(folder);
  const std::vector<std::string> texts = io_test::topic_documents(topics, each);
  for (std::size_t i = 0; i < texts.size(); ++i)
    io_test::write_bytes(folder / (std::to_string(1000 + i) + ".txt"), texts[i]);
}

graft::discovery discover(int threads, const fs::path& text, const fs::path& out, index_t clusters,
                          index_t sample = 20000) {
  graft::context<graft::cpu> ctx(graft::context_options{threads});
  graft::discover_options options;
  options.fit.clusters = clusters, options.fit.dimensions = 12, options.sample_documents = sample;
  return graft::discover_domains(ctx, {"text", text}, out, options);
}

}  // namespace

TEST_CASE("discover_domains: every document in the domain of its topic", "[io][clusters]") {
  const io_test::scratch_folder folder;
  write_topics(folder / "text", 3, 40);
  const graft::discovery found = discover(1, folder / "text", folder / "out", 3, 90);
  CHECK(!found.reused);
  CHECK(found.sampled == 90);
  REQUIRE(found.domains.size() == 3);
  std::multiset<std::string> all;
  std::set<std::string> topics;
  for (std::size_t j = 0; j < 3; ++j) {
    const graft::discovered_domain& domain = found.domains[j];
    CHECK(domain.source.name == "discovered-" + std::to_string(j + 1));
    const std::vector<std::string> texts = documents(domain.source.path);
    CHECK(texts.size() == 40);
    CHECK(domain.documents == 40);
    CHECK(graft::token_file(domain.source.path).text_bytes() == domain.bytes);
    const std::string topic = domain.words.at(0).substr(0, 6);  // t2word
    topics.insert(topic);
    for (const std::string& text : texts) {
      CHECK(text.find(topic) != std::string::npos);
      all.insert(text);
    }
    CHECK(graft::describe(domain).find("40 documents") != std::string::npos);
    CHECK(graft::describe(domain).find(domain.words.at(9)) != std::string::npos);
  }
  CHECK(topics == std::set<std::string>{"t0word", "t1word", "t2word"});
  const std::vector<std::string> texts = io_test::topic_documents(3, 40);
  CHECK((all == std::multiset<std::string>(texts.begin(), texts.end())));

  // What was fitted stands beside them and sends each document where it went.
  const graft::document_clusters clusters = graft::load_document_clusters(found.clusters);
  for (std::size_t j = 0; j < 3; ++j)
    for (const std::string& text : documents(found.domains[j].source.path))
      CHECK(graft::cluster_of(clusters, text) == static_cast<std::int32_t>(j));
}

TEST_CASE("discover_domains: prepare_corpus takes them, and a second run finds everything", "[io][clusters]") {
  const io_test::scratch_folder folder;
  write_topics(folder / "text", 4, 20);
  const auto run = [&] {
    std::vector<graft::corpus> corpora;
    const graft::discovery found = discover(1, folder / "text", folder / "out", 2);
    for (const graft::discovered_domain& domain : found.domains) {
      corpora.push_back(graft::prepare_corpus(domain.source, folder / "out"));
      CHECK(corpora.back().source.documents == domain.documents);
      CHECK(corpora.back().source.bytes == domain.bytes);
      CHECK(corpora.back().held_out.documents >= 1);
      CHECK(corpora.back().reused == found.reused);
    }
    return found.reused;
  };
  CHECK(!run());
  CHECK(run());
  SECTION("another text") {
    io_test::write_bytes(folder / "text/more.txt", io_test::topic_document(1, 5000));
    CHECK(!run());
  }
  SECTION("another number of clusters") { CHECK(!discover(1, folder / "text", folder / "out", 4).reused); }
  SECTION("a damaged domain") {
    io_test::write_bytes(folder / "out/discovered-1.bin", "GRAFTTOK");
    CHECK(!discover(1, folder / "text", folder / "out", 2).reused);
    CHECK(discover(1, folder / "text", folder / "out", 2).reused);
  }
}

TEST_CASE("discover_domains: the same files for any number of threads", "[io][clusters]") {
  const io_test::scratch_folder folder;
  write_topics(folder / "text", 2, 60);
  discover(1, folder / "text", folder / "one", 3);
  discover(2, folder / "text", folder / "two", 3);
  for (const char* name :
       {"discovered-1.bin", "discovered-2.bin", "discovered-3.bin", "discovered.safetensors", "discovered.json"}) {
    CHECK(!io_test::read_bytes(folder / "one" / name).empty());
    CHECK((io_test::read_bytes(folder / "one" / name) == io_test::read_bytes(folder / "two" / name)));
  }
}

TEST_CASE("discover_domains: one file is cut into documents", "[io][clusters]") {
  const io_test::scratch_folder folder;
  std::string text;
  for (int i = 0; i < 12; ++i) text += io_test::topic_document(i / 6, static_cast<std::uint64_t>(i), 1200) + "\n\n";
  io_test::write_bytes(folder / "all.txt", text);
  const graft::discovery found = discover(1, folder / "all.txt", folder / "out", 2);
  CHECK(found.domains[0].documents + found.domains[1].documents >= 64);
  CHECK(found.domains[0].bytes + found.domains[1].bytes == static_cast<index_t>(text.size()));
}

TEST_CASE("discover_domains: bad input", "[io][clusters]") {
  const io_test::scratch_folder folder;
  write_topics(folder / "text", 2, 2);
  CHECK_ERROR(discover(1, folder / "text", folder / "out", 1), "text", "2 to 4096 clusters", "got 1");
  CHECK_ERROR(discover(1, folder / "text", folder / "out", 3), "two documents for each of 3 clusters", "found 4");
  CHECK_ERROR(discover(1, folder / "none", folder / "out", 2), "none", "found nothing");
  io_test::write_bytes(folder / "white.txt", " \n\n \n");
  CHECK_ERROR(discover(1, folder / "white.txt", folder / "out", 2), "white.txt", "expected text");
  fs::create_directories(folder / "alike");
  for (int i = 0; i < 8; ++i)
    io_test::write_bytes(folder / "alike" / std::to_string(i), "one word " + std::to_string(i));
  CHECK_ERROR(discover(1, folder / "alike", folder / "out", 2), "alike", "documents hold");
  CHECK(!fs::exists(folder / "out"));  // nothing half-written
}

}  // namespace discover_domains_tests
