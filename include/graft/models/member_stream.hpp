// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// member_stream: a frozen transformer that is run a stretch of blocks at a time, its residual stream in the hands of
// the caller. What stitched_transformer has of each of its members.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <graft/layers/stitch_rows.hpp>
#include <graft/models/transformer.hpp>

namespace graft {

// Reads the weights of a transformer that others share. Keeps no gradients; the backward pass gives the gradient to the
// stream alone. Routers run as in evaluation.
template <class Member>
class member_stream {
 public:
  using Compute = typename Member::compute_type;
  using Mixture = typename Member::mixture_type;
  using context_type = typename Compute::context_type;
  using space = typename Compute::space;
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using cache_type = typename Member::cache_type;

  explicit member_stream(std::shared_ptr<Member> member)
      : member_(std::move(member)),
        mixture_(member_->mixture()),
        saved_(static_cast<std::size_t>(member_->shape().blocks)) {
    // A tree of the right form with no gradient in it: layers compute nothing for what is absent.
    zip_leaves(member_->parameters().specs(), no_gradients_, [](const parameter_spec&, typename Compute::gradient&) {});
  }

  Member& member() const { return *member_; }
  const std::shared_ptr<Member>& shared() const { return member_; }
  const transformer_shape& shape() const { return member_->shape(); }

  // Begins a pass: the stream is the embedding. Memory is the caller's workspace scope. cache: the inputs (1, S) go on
  // its sequence. inputs, cache and context must outlive the pass.
  void begin(context_type& context, view<const std::int32_t, 2, space> inputs, const cache_type* cache = nullptr) {
    const index_t rows = inputs.size(), held = cache != nullptr ? cache->length : 0;
    cache_ = cache;
    make_rope(context, held + inputs.extent(1));
    routing_pass<M, space> routing;
    routing.at.first_token = held;
    routing.positions = inputs.extent(1);
    routing.ids = reshape(inputs, rows);
    pass_.emplace(block_pass<Compute>{context, shape(),
                                      view<const M, 2, space>(rope_.data(), rope_positions_, shape().head_dim),
                                      inputs.extent(1), routing});
    stream_ = context.template allocate<T>(rows, shape().width);
    delta_ = context.template allocate<T>(rows, shape().width);
    pending_ = false;
    embedding_forward(context, stream_, member_->parameters().weights().model.embed_tokens.matrix(),
                      reshape(inputs, rows));
  }

  // Runs blocks [first, last). keep: for backward; else the stream is written in place and nothing is kept.
  void run(index_t first, index_t last, bool keep) {
    for (index_t block = first; block < last; ++block) {
      if (keep) {
        forward(block, true);
      } else {
        workspace_scope scope(pass_->context);
        forward(block, false);
      }
    }
  }

  // The stream behind the blocks that have run, (T, D). keep: in new memory, else in place. Cost: one pass over it.
  view<T, 2, space> state(bool keep) {
    if (!pending_) return stream_;
    const auto out = keep ? pass_->context.template allocate<T>(stream_.extent(0), stream_.extent(1)) : stream_;
    launch_rows(pass_->context, out.extent(0), out.extent(1), detail::add_delta_row<T, space>{out, stream_, delta_});
    stream_ = out;
    pending_ = false;
    return out;
  }
  // What the next block reads.
  void set_state(view<T, 2, space> state) {
    stream_ = state;
    pending_ = false;
  }

  // d_stream: the gradient to the state behind block last - 1 becomes that to the state in front of block first.
  // Requires: these blocks were run with keep. Overwrites what was kept.
  void backward(index_t first, index_t last, view<T, 2, space> d_stream) {
    for (index_t block = last; block-- > first;) {
      enter(block);
      block_backward<Mixture, Compute>(*pass_, mixture_, weights(block),
                                       no_gradients_.model.layers[static_cast<std::size_t>(block)],
                                       saved_[static_cast<std::size_t>(block)], d_stream, 0.0);
    }
  }

  // The head: its matrix (V, D), which is the embedding's where they are tied.
  view<T, 2, space> head() const {
    const auto& weights = member_->parameters().weights();
    return shape().tied ? weights.model.embed_tokens.matrix() : weights.lm_head.matrix();
  }
  view<T, 1, space> norm() const { return member_->parameters().weights().model.norm.vector(); }

  // As of transformer, for the passes of this stream.
  recording_key recording() const {
    recording_key key = member_->parameters().recording();
    key.append(rope_.data());
    return key;
  }

 private:
  const auto& weights(index_t block) const {
    return member_->parameters().weights().model.layers[static_cast<std::size_t>(block)];
  }

  void make_rope(context_type& context, index_t positions) {
    if (positions <= rope_positions_) return;
    const index_t wanted = std::max(positions, shape().positions);
    const std::vector<M> table = rope_table<M>(shape(), wanted);
    rope_ = buffer<M, space>(static_cast<index_t>(table.size()));
    copy_from_host(context, rope_.view(), table.data());
    rope_positions_ = wanted;
  }

  void enter(index_t block) {
    pass_->routing.layer = block;
    if constexpr (Mixture::present) {
      pass_->routing.experts = mixture_.experts(shape());
      if (block_is_mixture<Mixture>(shape(), block))
        pass_->routing.selection_bias = mixture_.template selection_bias<Compute>(
            member_->parameters().master_views().model.layers[static_cast<std::size_t>(block)].block_sparse_moe);
    }
    if (cache_ != nullptr) pass_->cache = cache_->view_of(block);
  }

  void forward(index_t block, bool keep) {
    enter(block);
    saved_[static_cast<std::size_t>(block)] = block_forward<Mixture, Compute>(
        *pass_, mixture_, weights(block), stream_,
        pending_ ? view<const T, 2, space>(delta_) : view<const T, 2, space>{}, delta_, keep);
    pending_ = true;
  }

  std::shared_ptr<Member> member_;
  Mixture mixture_;  // a copy: one that keeps what its layers saved must not be shared
  typename Member::template tree<typename Compute::gradient> no_gradients_;
  std::vector<block_saved<Mixture, Compute>> saved_;
  buffer<M, space> rope_;
  index_t rope_positions_ = 0;
  std::optional<block_pass<Compute>> pass_;
  const cache_type* cache_ = nullptr;
  view<T, 2, space> stream_, delta_;
  bool pending_ = false;  // the state is stream + delta
};

}  // namespace graft
