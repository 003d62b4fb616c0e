// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// tf-idf against numbers worked out by hand, its limits on the vocabulary, and the sentence of each error.

#include "catch.hpp"

#include <cmath>
#include <string>
#include <vector>

#include <graft/io/tf_idf.hpp>

#include "io/io_test.hpp"

namespace tf_idf_tests {

namespace {

const std::vector<std::string> documents{"Apple apple pear 12", "pear plum 7 plum", "plum apple kiwi", "fig"};

}  // namespace

TEST_CASE("tf_idf: rows by hand", "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  graft::tf_idf_options options;
  options.least_documents = 1;
  const graft::tf_idf vocabulary = graft::fit_tf_idf(documents, options);
  // By falling document frequency (2, 2, 2, 2, 1, 1), then by their bytes.
  REQUIRE(vocabulary.terms() == std::vector<std::string>{"#NUMBER", "apple", "pear", "plum", "fig", "kiwi"});
  const double twice = std::log(5.0 / 3.0) + 1, once = std::log(5.0 / 2.0) + 1;
  CHECK(vocabulary.idf(0) == Approx(twice).epsilon(1e-15));
  CHECK(vocabulary.idf(5) == Approx(once).epsilon(1e-15));
  CHECK(vocabulary.find("plum") == 3);
  CHECK(vocabulary.find("Plum") == -1);

  const graft::sparse_matrix x = graft::tf_idf_rows(ctx, vocabulary, documents);
  CHECK(x.begin == std::vector<graft::index_t>{0, 3, 6, 9, 10});
  CHECK(x.column == std::vector<std::int32_t>{0, 1, 2, 0, 2, 3, 1, 3, 5, 4});
  const double third = std::sqrt(2 * twice * twice + once * once);
  const double wanted[] = {
      1 / std::sqrt(6.0), 2 / std::sqrt(6.0), 1 / std::sqrt(6.0), 1 / std::sqrt(6.0), 1 / std::sqrt(6.0),
      2 / std::sqrt(6.0), twice / third,      twice / third,      once / third,       1.0};
  for (std::size_t i = 0; i < 10; ++i) CHECK(std::abs(x.value[i] - wanted[i]) < 6e-8);  // 2^-24: one rounding to float
}

TEST_CASE("tf_idf: which words are in the vocabulary", "[io][clusters]") {
  graft::tf_idf_options options;
  CHECK(graft::fit_tf_idf(documents, options).terms() == std::vector<std::string>{"#NUMBER", "apple", "pear", "plum"});
  options.terms = 2;
  CHECK(graft::fit_tf_idf(documents, options).terms() == std::vector<std::string>{"#NUMBER", "apple"});
  options.most_documents = 0.49, options.least_documents = 1;
  CHECK(graft::fit_tf_idf(documents, options).terms() == std::vector<std::string>{"fig", "kiwi"});
}

TEST_CASE("tf_idf: a vocabulary finds each of many words", "[io][clusters]") {
  std::vector<std::string> terms;
  for (int i = 0; i < 3000; ++i) terms.push_back("w" + std::to_string(i * 7));
  const graft::tf_idf vocabulary(terms, std::vector<double>(terms.size(), 1.0));
  for (std::int32_t i = 0; i < 3000; ++i) REQUIRE(vocabulary.find(terms[static_cast<std::size_t>(i)]) == i);
  CHECK(vocabulary.find("w1") == -1);
  CHECK(graft::tf_idf().find("w1") == -1);
}

TEST_CASE("tf_idf: bad input", "[io][clusters]") {
  CHECK_ERROR(graft::fit_tf_idf({}), "at least one document", "got 0");
  const std::vector<std::string> alike{"one two", "one two"};
  CHECK_ERROR(graft::fit_tf_idf(alike), "at least 2 and at most 50 %", "none among 2 words of 2 documents");
  graft::tf_idf_options options;
  options.most_documents = 1.5;
  CHECK_ERROR(graft::fit_tf_idf(documents, options), "most_documents", "1.5");
  options = {};
  options.terms = 0;
  CHECK_ERROR(graft::fit_tf_idf(documents, options), "expected terms", "got 0");
  CHECK_ERROR(graft::tf_idf({"a", "a"}, {1, 1}), "'a' stands twice");
  CHECK_ERROR(graft::tf_idf({"a"}, {-1}), "positive idf", "-1");
  CHECK_ERROR(graft::tf_idf({"a"}, {}), "terms=1", "idf=0");
}

}  // namespace tf_idf_tests
