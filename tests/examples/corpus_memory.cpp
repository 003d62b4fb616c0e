// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The memory that preparing corpora and finding domains takes, whatever the size of the text. Here and not beside the
// other tests of corpora, which run with AddressSanitizer: that keeps what was freed.

#include "catch.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <graft/io/corpus.hpp>
#include <graft/io/discover_domains.hpp>

#include "io/text_test.hpp"
#include "io/topics.hpp"

namespace corpus_memory_tests {

namespace fs = std::filesystem;

namespace {

// KiB that a process of its own needs at most for `work`, which says whether it went right.
template <class Work>
long peak_kib(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    bool right = false;
    try {
      right = work();
    } catch (const graft::error&) {}
    ::_exit(right ? 0 : 1);
  }
  int status = 0;
  rusage usage{};
  REQUIRE(::wait4(child, &status, 0, &usage) == child);
  REQUIRE(status == 0);
  return usage.ru_maxrss;
}

}  // namespace

TEST_CASE("prepare_corpus: ten times the file, the same memory", "[slow]") {
  const io_test::scratch_folder folder;
  const bool gzip = GENERATE(false, true);
  const auto peak_of = [&](int megabytes) {
    const auto path = folder / ("big" + std::to_string(megabytes));
    for (int i = 0; i < megabytes; ++i) {
      const std::string piece = "piece " + std::to_string(i) + "\n\n";
      std::string text;
      while (text.size() < 1'000'000) text += piece;
      if (gzip) {
        io_test::append_gzip(path, text);
      } else {
        std::ofstream(path, std::ios::app | std::ios::binary) << text;
      }
    }
    const long peak = peak_kib([&] {
      graft::corpus_options options;
      options.max_bytes = 4'000'000;
      const graft::corpus data = graft::prepare_corpus({"big", path}, folder / "out", options);
      return data.source.bytes > megabytes * 1'000'000LL && data.train.bytes > 3'000'000;
    });
    fs::remove(path);
    return peak;
  };
  const long small = peak_of(10), large = peak_of(100);
  INFO(small << " KiB for 10 MB, " << large << " KiB for 100 MB");
  CHECK(large - small < 1024);  // of pages that happen to be touched; the data would be 90,000
}

TEST_CASE("discover_domains: five times the text, the same memory", "[slow]") {
  const io_test::scratch_folder folder;
  const auto peak_of = [&](int documents) {
    const auto path = folder / ("text" + std::to_string(documents));
    std::ofstream stream(path, std::ios::binary);
    for (int i = 0; i < documents; ++i)
      stream << io_test::topic_document(i % 2, static_cast<std::uint64_t>(i % 100), 6000) << "\n\n";
    stream.close();
    const long peak = peak_kib([&] {
      graft::context<graft::cpu> ctx(graft::context_options{1});  // one thread: OpenMP does not survive a fork
      graft::discover_options options;
      options.fit.clusters = 2, options.fit.dimensions = 4, options.sample_bytes = 1 << 20;
      options.fit.vocabulary.most_documents = 1;  // documents of this length have all words of their topic
      const graft::discovery found = graft::discover_domains(ctx, {"text", path}, folder / "out", options);
      return found.domains[0].documents + found.domains[1].documents >= documents / 2;
    });
    fs::remove(path);
    return peak;
  };
  const long small = peak_of(100), large = peak_of(500);
  INFO(small << " KiB for 6 MB, " << large << " KiB for 28 MB");
  CHECK(large - small < 2048);  // of pages that happen to be touched; the data would be 22,000
}

}  // namespace corpus_memory_tests
