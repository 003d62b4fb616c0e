// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A forest of one expert per cluster of documents, weighed by how near the text so far is to each cluster (c-BTM)
//
//   p(x_t | x_<t) = sum_j w_j(x_<t) p_j(x_t | x_<t),   w_j as in io/cluster_posterior.hpp
//
// The weights are a forest's prior from the text, of each sequence or of each token. Source: Gururangan et al., 2023,
// arXiv 2303.14177, section 2.3.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <graft/io/cluster_posterior.hpp>
#include <graft/models/forest.hpp>

namespace graft {

// What a cluster_prior_source looks at.
struct cluster_prior_options {
  cluster_posterior_options posterior{};
  index_t tokens =
      0;              // of a sequence, for a prior of all of it: so many at its beginning; 0: all that the forest shows
  index_t chunk = 1;  // that share a prior of each token, that of the first; 1: the definition, more: cheaper
};

// The posterior over clusters as a forest's prior_source, for both scopes of a prior.
// Requires: the context outlives it; tokens are those of the byte tokenizer. Cost: a copy of the tokens to the host and
// cluster_posterior there, by all threads where every token has a prior of its own.
template <class Context>
class cluster_prior_source {
 public:
  using space = typename Context::space;

  cluster_prior_source(Context& context, std::shared_ptr<const document_clusters> clusters,
                       const cluster_prior_options& options = {})
      : context_(&context),
        clusters_(std::move(clusters)),
        options_(options),
        host_(std::make_shared<graft::context<cpu>>(context_options{context.threads()})) {
    GRAFT_CHECK(clusters_ != nullptr, "cluster_prior_source: expected clusters, got a null pointer");
    GRAFT_CHECK(options.tokens >= 0, "cluster_prior_source: expected at least 0 tokens (0: all), got ", options.tokens);
    GRAFT_CHECK(options.chunk >= 1, "cluster_prior_source: expected chunks of at least one token, got ", options.chunk);
    cluster_posterior(*clusters_, options_.posterior);  // its checks
  }
  // Shapes: inputs (B, S), contiguous; prior on the host, (B, N) or (B S, N).
  void operator()(view<const std::int32_t, 2, space> inputs, matrix_view<double> prior) const {
    const index_t sequences = inputs.extent(0), positions = inputs.extent(1), members = prior.extent(1);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(inputs.size()));
    copy_to_host(*context_, tokens.data(), reshape(inputs, inputs.size()));
    if (prior.extent(0) > sequences) {
      const std::vector<double> weights =
          cluster_weights(*host_, *clusters_, tokens, positions, options_.chunk, options_.posterior);
      const index_t chunks = (positions + options_.chunk - 1) / options_.chunk;
      for (index_t t = 0; t < inputs.size(); ++t) {
        const index_t chunk = t / positions * chunks + t % positions / options_.chunk;
        std::copy_n(weights.data() + chunk * members, members, prior.row(t));
      }
      return;
    }
    const index_t seen = options_.tokens > 0 ? std::min(options_.tokens, positions) : positions;
    for (index_t b = 0; b < sequences; ++b) {
      cluster_posterior posterior(*clusters_, options_.posterior);
      posterior.append(
          std::span(tokens).subspan(static_cast<std::size_t>(b * positions), static_cast<std::size_t>(seen)));
      posterior.weights(std::span(prior.row(b), static_cast<std::size_t>(members)));
    }
  }

 private:
  Context* context_;
  std::shared_ptr<const document_clusters> clusters_;
  cluster_prior_options options_;
  std::shared_ptr<graft::context<cpu>> host_;
};

// Member j is the expert of cluster j, and the text decides token by token what it counts. In generation every member
// reads every token, since one that is left out now may be wanted later.
// Errors: those of forest; another number of members than clusters; those of cluster_prior_source.
template <class Compute = compute<fp32, cpu>, class Member = dense_transformer<Compute>>
forest<fixed_weights, Compute, Member> clustered_forest(std::vector<std::shared_ptr<Member>> members,
                                                        std::shared_ptr<const document_clusters> clusters,
                                                        const cluster_posterior_options& posterior = {},
                                                        index_t chunk = 1) {
  forest<fixed_weights, Compute, Member> model(std::move(members));
  GRAFT_CHECK(clusters == nullptr || model.size() == clusters->size(),
              "clustered_forest: expected one member per cluster, got members=", model.size(),
              ", clusters=", clusters->size());
  model.set_prior_source(
      cluster_prior_source<typename Compute::context_type>(model.context(), std::move(clusters), {posterior, 0, chunk}),
      prior_scope::token);
  return model;
}

}  // namespace graft
