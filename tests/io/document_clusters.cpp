// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Document clusters: planted topics are found, the embedding is its definition and grows in place, the posterior, the
// file, threads, errors.

#include "catch.hpp"

#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <graft/io/cluster_posterior.hpp>
#include <graft/io/document_clusters_file.hpp>
#include <graft/io/document_sample.hpp>

#include "io/io_test.hpp"
#include "io/topics.hpp"

namespace document_clusters_tests {

namespace {

using graft::index_t;

graft::document_clusters fit(int threads, int topics, int each) {
  graft::context<graft::cpu> ctx(graft::context_options{threads});
  graft::document_clusters_options options;
  options.clusters = topics, options.dimensions = 12;
  return graft::fit_document_clusters(ctx, io_test::topic_documents(topics, each), options);
}

const graft::document_clusters& fitted() {
  static const graft::document_clusters clusters = fit(1, 4, 30);
  return clusters;
}

std::vector<double> embedding(const graft::document_clusters& clusters, std::string_view text) {
  std::vector<double> e(static_cast<std::size_t>(clusters.dimensions));
  graft::embed_document(clusters, text, e);
  return e;
}

// softmax(-|e - c|^2 / tau) by its formula.
std::vector<double> softmax_of_distances(const graft::document_clusters& clusters, const std::vector<double>& e,
                                         double tau) {
  std::vector<double> weights;
  double sum = 0;
  for (index_t j = 0; j < clusters.size(); ++j) {
    double distance = 0;
    for (std::size_t i = 0; i < e.size(); ++i)
      distance += (e[i] - clusters.centre(j)[i]) * (e[i] - clusters.centre(j)[i]);
    weights.push_back(std::exp(-distance / tau));
    sum += weights.back();
  }
  for (double& weight : weights) weight /= sum;
  return weights;
}

}  // namespace

TEST_CASE("document_clusters: planted topics are found", "[io][clusters]") {
  const graft::document_clusters& clusters = fitted();
  REQUIRE(clusters.size() == 4);
  CHECK(clusters.dimensions == 12);
  std::set<std::int32_t> used;
  for (int topic = 0; topic < 4; ++topic) {
    const std::int32_t cluster = graft::cluster_of(clusters, io_test::topic_document(topic, 1000));
    CHECK(used.insert(cluster).second);
    // Documents that the fit has not seen.
    for (std::uint64_t i = 1001; i < 1030; ++i)
      CHECK(graft::cluster_of(clusters, io_test::topic_document(topic, i)) == cluster);
    const auto& words = clusters.words[static_cast<std::size_t>(cluster)];
    CHECK(words.size() == 10);
    for (const std::string& word : words) CHECK(word.starts_with("t" + std::to_string(topic) + "word"));
  }
}

TEST_CASE("document_clusters: the embedding is tf-idf times basis, of length 1", "[io][clusters]") {
  const graft::document_clusters& clusters = fitted();
  graft::context<graft::cpu> ctx(graft::context_options{1});
  const std::vector<std::string> text{io_test::topic_document(2, 77)};
  const graft::sparse_matrix x = graft::tf_idf_rows(ctx, clusters.vocabulary, text);
  REQUIRE(x.nonzeros() > 5);
  std::vector<double> wanted(12, 0.0);
  for (std::size_t i = 0; i < x.column.size(); ++i)
    for (std::size_t e = 0; e < 12; ++e)
      wanted[e] += static_cast<double>(x.value[i]) *
                   static_cast<double>(clusters.basis[static_cast<std::size_t>(x.column[i]) * 12 + e]);
  const double length = std::sqrt(std::inner_product(wanted.begin(), wanted.end(), wanted.begin(), 0.0));
  const std::vector<double> e = embedding(clusters, text[0]);
  // x is rounded to float: 2^-24 of each of its elements, whose vector has length 1.
  for (std::size_t i = 0; i < 12; ++i) CHECK(std::abs(e[i] - wanted[i] / length) < 6e-8 * 2 / length);
  CHECK(embedding(clusters, "") == std::vector<double>(12, 0.0));
  CHECK(embedding(clusters, "unheard of") == std::vector<double>(12, 0.0));
}

TEST_CASE("text_embedding: a prefix that grows has the bits of the prefix as a whole", "[io][clusters]") {
  const graft::document_clusters& clusters = fitted();
  const std::string text = "t1word3 Été t1word11,common4 12 t0word2 \xE9t t3word1";
  graft::text_embedding growing(clusters);
  std::vector<double> e(12);
  std::set<std::vector<double>> different;
  for (std::size_t end = 0; end <= text.size(); ++end) {
    growing.value(e);
    CHECK(e == embedding(clusters, std::string_view(text).substr(0, end)));
    different.insert(e);
    if (end < text.size()) growing.append(std::string_view(text).substr(end, 1));
  }
  CHECK(different.size() >= 5);
  growing.clear();
  growing.value(e);
  CHECK(e == std::vector<double>(12, 0.0));
}

TEST_CASE("cluster_posterior: softmax of squared distances, of sum one", "[io][clusters]") {
  const graft::document_clusters& clusters = fitted();
  for (const double tau : {0.1, 1.0}) {
    graft::cluster_posterior_options options;
    options.temperature = tau;
    for (const std::string& text : {std::string(), std::string("t0word1 t1word2"), io_test::topic_document(3, 5)}) {
      const std::vector<double> weights = graft::cluster_weights(clusters, text, options);
      const std::vector<double> wanted = softmax_of_distances(clusters, embedding(clusters, text), tau);
      double sum = 0;
      for (std::size_t j = 0; j < 4; ++j) {
        CHECK(std::abs(weights[j] - wanted[j]) <
              1e-13);  // distances up to 4 over 0.1: 40 roundings of 2e-16, and exp's
        sum += weights[j];
      }
      CHECK(std::abs(sum - 1) < 1e-15 * 4);
    }
  }
  // A text of one topic goes to its cluster.
  const auto cluster = static_cast<std::size_t>(graft::cluster_of(clusters, io_test::topic_document(3, 5)));
  CHECK(graft::cluster_weights(clusters, io_test::topic_document(3, 5))[cluster] > 0.9);
}

TEST_CASE("cluster_posterior: the largest weights, renormalised", "[io][clusters]") {
  const graft::document_clusters& clusters = fitted();
  const std::string text = "t0word1 t0word2 t2word1";
  const std::vector<double> all = graft::cluster_weights(clusters, text);
  graft::cluster_posterior_options options;
  options.clusters = 2;
  const std::vector<double> two = graft::cluster_weights(clusters, text, options);
  const auto a = static_cast<std::size_t>(graft::cluster_of(clusters, "t0word1"));
  const auto b = static_cast<std::size_t>(graft::cluster_of(clusters, "t2word1"));
  for (std::size_t j = 0; j < 4; ++j)
    CHECK(std::abs(two[j] - (j == a || j == b ? all[j] / (all[a] + all[b]) : 0.0)) < 1e-14);
  CHECK(two[a] > two[b]);
  CHECK(two[b] > 0);
}

TEST_CASE("cluster_weights: chunks of a batch see what stands before their predictions", "[io][clusters]") {
  const graft::document_clusters& clusters = fitted();
  const index_t positions = 40, chunk = 16;
  std::vector<std::int32_t> inputs;
  for (int sequence = 0; sequence < 2; ++sequence) {
    std::string text = io_test::topic_document(sequence, 9).substr(0, static_cast<std::size_t>(positions));
    for (const char byte : text) inputs.push_back(static_cast<unsigned char>(byte));
  }
  inputs[10] = graft::byte_tokenizer::end_of_text();
  graft::context<graft::cpu> ctx(graft::context_options{2});
  const std::vector<double> weights = graft::cluster_weights(ctx, clusters, inputs, positions, chunk);
  REQUIRE(weights.size() == 2 * 3 * 4);
  for (std::size_t sequence = 0; sequence < 2; ++sequence)
    for (std::size_t c = 0; c < 3; ++c) {
      graft::cluster_posterior posterior(clusters);
      posterior.append(std::span<const std::int32_t>(inputs).subspan(sequence * 40, c * 16 + 1));
      const std::vector<double> wanted = posterior.weights();
      for (std::size_t j = 0; j < 4; ++j) CHECK(weights[(sequence * 3 + c) * 4 + j] == wanted[j]);
    }
  // The end of a document ends a word.
  graft::cluster_posterior posterior(clusters);
  posterior.append(std::vector<std::int32_t>{'t', '0', 'w', 'o', 'r', 'd', '1', 256, '1'});
  CHECK(posterior.weights() == graft::cluster_weights(clusters, "t0word1\n1"));
  CHECK(posterior.weights() != graft::cluster_weights(clusters, ""));
}

TEST_CASE("document_clusters: the same bits for any number of threads", "[io][clusters]") {
  const graft::document_clusters one = fit(1, 3, 60), two = fit(2, 3, 60);
  CHECK((one.basis == two.basis));
  CHECK((one.centres == two.centres));
  CHECK(one.words == two.words);
}

TEST_CASE("document_clusters: saved and loaded, to the bit", "[io][clusters]") {
  const io_test::scratch_folder folder;
  const graft::document_clusters& clusters = fitted();
  graft::save_document_clusters(folder / "c.safetensors", clusters);
  const graft::document_clusters loaded = graft::load_document_clusters(folder / "c.safetensors");
  CHECK(loaded.vocabulary.terms() == clusters.vocabulary.terms());
  CHECK(loaded.vocabulary.idf() == clusters.vocabulary.idf());
  CHECK(loaded.dimensions == clusters.dimensions);
  CHECK((loaded.basis == clusters.basis));
  CHECK((loaded.centres == clusters.centres));
  CHECK(loaded.words == clusters.words);
  const std::string text = io_test::topic_document(1, 4);
  CHECK(graft::cluster_weights(loaded, text) == graft::cluster_weights(clusters, text));
}

TEST_CASE("load_document_clusters: bad files", "[io][clusters]") {
  const io_test::scratch_folder folder;
  const auto path = folder / "c.safetensors";
  CHECK_ERROR(graft::load_document_clusters(path), "c.safetensors");
  io_test::write_bytes(path, "no tensors");
  CHECK_ERROR(graft::load_document_clusters(path), "c.safetensors");
  graft::write_safetensors(path, {});
  CHECK_ERROR(graft::load_document_clusters(path), "graft.kind", "got none");
  graft::write_safetensors(path, {}, {{"graft.kind", "document_clusters"}});
  CHECK_ERROR(graft::load_document_clusters(path), "\"vocabulary\" is missing");

  const auto saved = [&](auto change) {
    graft::document_clusters clusters = fitted();
    change(clusters);
    graft::save_document_clusters(path, clusters);
    return path;
  };
  CHECK_ERROR(graft::load_document_clusters(saved([](auto& c) { c.centres[3] = NAN; })), "centres", "nan");
  CHECK_ERROR(graft::load_document_clusters(saved([](auto& c) { c.basis[3] = INFINITY; })), "basis", "inf");
  CHECK_ERROR(graft::load_document_clusters(saved([](auto& c) { c.words.pop_back(); })), "graft.words", "4 clusters");
  CHECK_ERROR(graft::load_document_clusters(saved([](auto& c) { c.centres.resize(12); })), "at least 2 clusters",
              "[1, 12]");
  CHECK_ERROR(graft::load_document_clusters(saved([](auto& c) {
                c.vocabulary = graft::tf_idf({"one\ntwo"}, {1.0});
                c.basis.resize(12);
              })),
              "1 terms", "got 2");
}

TEST_CASE("document_clusters: bad input", "[io][clusters]") {
  graft::context<graft::cpu> ctx(graft::context_options{1});
  const std::vector<std::string> three{"one two", "two three", "three one"};
  graft::document_clusters_options options;
  CHECK_ERROR(graft::fit_document_clusters(ctx, three, options), "documents=3", "clusters=4");
  CHECK_ERROR(graft::fit_document_clusters(ctx, {}, options), "documents=0");
  options.clusters = 1;
  CHECK_ERROR(graft::fit_document_clusters(ctx, three, options), "at least 2 clusters", "got 1");
  options.clusters = 2;
  const std::vector<std::string> blank{" ", "", "..."};
  CHECK_ERROR(graft::fit_document_clusters(ctx, blank, options), "found none among 0 words of 3 documents");

  graft::cluster_posterior_options posterior;
  posterior.clusters = 5;
  CHECK_ERROR(graft::cluster_posterior(fitted(), posterior), "at most 4", "got 5");
  posterior = {0.0, 0};
  CHECK_ERROR(graft::cluster_posterior(fitted(), posterior), "positive temperature", "got 0");
  CHECK_ERROR(graft::cluster_weights(ctx, fitted(), std::vector<std::int32_t>{1, 2, 3}, 2, 1), "2 tokens", "3 tokens");
  CHECK_ERROR(graft::cluster_weights(ctx, fitted(), std::vector<std::int32_t>{1, 300}, 2, 1), "0 to 256", "300");
}

TEST_CASE("document_sample: a function of the set of documents", "[io][clusters]") {
  const auto sample = [](const std::vector<int>& order, index_t documents, index_t bytes, std::uint64_t seed) {
    graft::document_sample chosen(documents, bytes, seed);
    for (const int i : order)
      chosen.add(static_cast<std::uint64_t>(i) * 977,
                 [&] { return std::string(static_cast<std::size_t>(i % 9 + 1), 'a') + std::to_string(i); });
    CHECK(chosen.documents() <= documents);
    CHECK(chosen.bytes() <= bytes);
    return chosen.take();
  };
  std::vector<int> forward(500), backward;
  std::iota(forward.begin(), forward.end(), 0);
  backward.assign(forward.rbegin(), forward.rend());
  backward.insert(backward.end(), forward.begin(), forward.end());  // and each a second time
  const std::vector<std::string> few = sample(forward, 50, 1 << 20, 1);
  CHECK(few.size() == 50);
  CHECK(sample(backward, 50, 1 << 20, 1) == few);
  CHECK(sample(forward, 50, 1 << 20, 2) != few);
  const std::vector<std::string> small = sample(forward, 500, 300, 1);
  CHECK(small.size() > 300 / 12 - 2);  // 2 to 12 bytes each
  CHECK(sample(backward, 500, 300, 1) == small);
  CHECK(sample(forward, 1000, 1 << 20, 1).size() == 500);
  // From everywhere: 4 standard deviations of a fair draw of 50 around 25 are 14.
  int low = 0;
  for (const std::string& text : few) low += std::stoi(text.substr(text.find_first_not_of('a'))) < 250;
  CHECK(std::abs(low - 25) <= 14);
}

}  // namespace document_clusters_tests
