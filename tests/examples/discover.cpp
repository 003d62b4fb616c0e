// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// --discover K PATH as the programs read it, and the domains that it gives them.

#include "catch.hpp"

#include <filesystem>
#include <string>
#include <vector>

// The programs' own files: no library of them is linked here.
#include "common/data.cpp"
#include "common/discover.cpp"

#include "io/io_test.hpp"
#include "io/topics.hpp"

namespace discover_tests {

namespace {

examples::discover_choice parsed(std::vector<std::string> words) {
  CLI::App app;
  examples::discover_choice choice;
  examples::add_discover_flag(app, choice);
  app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  return choice;
}

}  // namespace

TEST_CASE("discover: two words", "[examples][clusters]") {
  CHECK(!parsed({}).wanted());
  const examples::discover_choice choice = parsed({"--discover", "4", "some text"});
  CHECK(choice.wanted());
  CHECK(choice.clusters() == 4);
  CHECK(choice.path() == "some text");
  CHECK_THROWS_AS(parsed({"--discover", "4"}), CLI::ParseError);
  CHECK_THROWS_AS(parsed({"--discover", "four", "text"}), CLI::ParseError);
}

TEST_CASE("discover: the domains come after those of --domain", "[examples][clusters]") {
  const io_test::scratch_folder folder;
  std::filesystem::create_directories(folder / "text");
  const std::vector<std::string> texts = io_test::topic_documents(2, 40);
  for (std::size_t i = 0; i < texts.size(); ++i) io_test::write_bytes(folder / "text" / std::to_string(i), texts[i]);
  const examples::discover_choice choice{{2, (folder / "text").string()}};
  const auto names = [&](const std::vector<std::string>& domains) {
    std::vector<std::string> result;
    for (const auto& source : examples::domains_from(domains, choice, folder / "data", 0, 1))
      result.push_back(source.name);
    return result;
  };
  CHECK(names({}) == std::vector<std::string>{"discovered-1", "discovered-2"});
  CHECK(names({"own=" + folder.path().string()}) == std::vector<std::string>{"own", "discovered-1", "discovered-2"});
  CHECK(graft::load_document_clusters(examples::discovered_clusters(folder / "data")).size() == 2);
  CHECK_ERROR(examples::domains_from({}, {{1, "text"}}, folder / "none", 0, 1), "--discover", "at least 2", "got 1");
  CHECK_ERROR(examples::domains_from({}, {{2, (folder / "no").string()}}, folder / "none", 0, 1), "found nothing");
  CHECK(!std::filesystem::exists(folder / "none"));
}

}  // namespace discover_tests
