// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Expert routing as a model: complete models that stay as they are, and a router (models/expert_router.hpp) that
// chooses for a whole sequence which of them reads it. The router is what is trained; the rest is a forest of fixed
// weights.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/core/hash.hpp>
#include <graft/models/expert_router.hpp>
#include <graft/models/forest.hpp>

namespace graft {

// Over which tokens the member with the lowest loss is looked for in training.
enum class label_tokens {
  all,           // of the sequence
  continuation,  // those that the router has not seen
};

struct expert_routing_options {
  index_t kept = 1;         // members that read a sequence; above 1 they are mixed by the softmax of their logits
  index_t choose_from = 0;  // the choice is made from so many tokens at the start; 0: from all that there are
  index_t shortest = 32;    // tokens that the router sees in training: uniform between the two
  index_t longest = 256;
  label_tokens labels = label_tokens::all;
};

namespace detail {

// y = argmin_i sum of loss_i over the sequence, ties to the lower index; with n the targets of the sequence
//   loss = n (logsumexp(l) - l_y),   d_l = scale n (softmax(l) - onehot(y))
// statistics: loss, then n in the column of argmax l, then n, then n where argmax l is y.
template <class M, class Space>
struct router_loss_row {
  view<M, 2, Space> d_logits;                  // (B, C)
  view<M, 2, Space> statistics;                // (B, C + 3)
  view<const M, 2, Space> logits;              // (B, C)
  view<const M, 2, Space> losses;              // (C, B S)
  view<const std::int32_t, 2, Space> targets;  // (B, S)
  view<const std::int32_t, 1, Space> lengths;  // (B)
  label_tokens labels;
  step_value<double> token_scale;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t b) const {
    const index_t models = logits.extent(1), positions = targets.extent(1);
    // The target at position s is token s + 1.
    const index_t from = labels == label_tokens::continuation ? lengths[b] - 1 : 0;
    index_t label = 0;
    double lowest = 0;
    for (index_t i = 0; i < models; ++i) {
      const M* loss = losses.row(i) + b * positions;
      const double total = group.sum(positions - from, [&](index_t s) { return static_cast<double>(loss[from + s]); });
      if (i > 0 && !(total < lowest)) continue;
      lowest = total;
      label = i;
    }
    const M* logit = logits.row(b);
    const auto scale = static_cast<M>(double{token_scale});
    const M weight = group.sum(positions, [&](index_t s) { return targets(b, s) >= 0 ? M(1) : M(0); });
    const auto best = group.argmax(models, [&](index_t i) { return logit[i]; });
    const M sum = group.sum(models, [&](index_t i) { return math::exp(logit[i] - best.value); });
    M* out = statistics.row(b);
    group.for_each(models, [&](index_t i) {
      const M p = math::exp(logit[i] - best.value) / sum;
      d_logits(b, i) = scale * weight * (p - (i == label ? M(1) : M(0)));
      out[1 + i] = i == best.index ? weight : M(0);
    });
    group.single([&] {
      out[0] = weight * (best.value + math::log(sum) - logit[label]);
      out[models + 1] = weight;
      out[models + 2] = best.index == label ? weight : M(0);
    });
  }
};

}  // namespace detail

// Member 0 is the seed, whose input embedding the router reads. One class for each member, the seed among them.
template <class Compute = compute<fp32, cpu>, class Member = dense_transformer<Compute>>
class routed_forest {
 public:
  using forest_type = forest<fixed_weights, Compute, Member>;
  using compute_type = Compute;
  using member_type = Member;
  using context_type = typename Compute::context_type;
  using space = typename Compute::space;
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using cache_type = typename forest_type::cache_type;

  // The router's weights are zero, which chooses member 0, until they are initialised or loaded.
  explicit routed_forest(std::vector<std::shared_ptr<Member>> members, const expert_routing_options& options = {})
      : forest_(std::move(members), fixed_weights{.kept = options.kept}),
        options_(options),
        router_(forest_.context(), forest_.size(), forest_.shape().width),
        metrics_(forest_.size() + 3) {
    GRAFT_CHECK(options.kept >= 1 && options.kept <= forest_.size(), "routed_forest: expected to keep from 1 to ",
                forest_.size(), " members, got ", options.kept);
    GRAFT_CHECK(options.choose_from >= 0 && options.shortest >= 1 && options.shortest <= options.longest,
                "routed_forest: expected choose_from >= 0 and 1 <= shortest <= longest, got choose_from=",
                options.choose_from, ", shortest=", options.shortest, ", longest=", options.longest);
    forest_.set_prior_source([this](view<const std::int32_t, 2, space> inputs, matrix_view<double> prior) {
      const std::vector<M> logits = router_.logits(embedding(), inputs, options_.choose_from);
      for (index_t b = 0; b < prior.extent(0); ++b) {
        const M* row = logits.data() + b * prior.extent(1);
        const M top = *std::max_element(row, row + prior.extent(1));
        for (index_t j = 0; j < prior.extent(1); ++j) prior(b, j) = std::exp(static_cast<double>(row[j] - top));
      }
    });
  }
  routed_forest(const routed_forest&) = delete;
  routed_forest& operator=(const routed_forest&) = delete;

  context_type& context() const { return forest_.context(); }
  const transformer_shape& shape() const { return forest_.shape(); }
  const std::vector<std::shared_ptr<Member>>& members() const { return forest_.members(); }
  const expert_routing_options& options() const { return options_; }
  expert_router<Compute>& router() { return router_; }
  // The router's: the members are frozen.
  auto& parameters() { return router_.parameters(); }
  const auto& parameters() const { return router_.parameters(); }
  const parameter_layout& layout() const { return router_.layout(); }
  void initialize(std::uint64_t seed) { router_.initialize(seed); }
  index_t parameter_count() const { return forest_.parameter_count() + layout().parameter_count(); }
  index_t active_parameter_count() const { return forest_.active_parameter_count() + layout().parameter_count(); }

  // The member of the largest logit for each sequence, as token_losses chooses it.
  std::vector<index_t> choose(view<const std::int32_t, 2, space> inputs) const {
    return router_.choose(embedding(), inputs, 1, options_.choose_from);
  }

  // losses (B S): the cross entropy of every token under the member that its sequence is sent to. Each member runs on
  // its sequences alone. Adds to the metrics; their load is the tokens sent to each member.
  // The choice is made from the tokens of the window: by default from all of them, as from the whole prompt of a text
  // that goes on, and so from tokens that are predicted too. choose_from bounds that.
  // Cost: one host synchronisation, and a copy of each member's sequences.
  void token_losses(view<M, 1, space> losses, view<const std::int32_t, 2, space> inputs,
                    view<const std::int32_t, 2, space> targets) {
    forest_.token_losses(losses, inputs, targets);
  }
  // Shapes and prompt: forest::next_token_logits.
  void next_token_logits(view<M, 2, space> logits, view<const std::int32_t, 2, space> inputs, index_t prompt = 0) {
    forest_.next_token_logits(logits, inputs, prompt);
  }
  bool can_cache() const { return forest_.can_cache(); }
  cache_type make_cache(index_t limit) { return forest_.make_cache(limit); }
  // The first tokens of a text, its prompt, choose the member for the whole of it.
  void extend(cache_type& cache, view<const std::int32_t, 1, space> tokens, view<M, 1, space> logits) {
    forest_.extend(cache, tokens, logits);
  }

  // Adds to the router's gradient that of
  //   token_scale * sum over sequences of n CE(l, y),   y = argmin_i of the members' losses, n the sequence's targets
  // so that a trainer's mean over tokens is the mean over sequences of one length. The router sees a random number of
  // tokens of each sequence. Cost: a forward pass of every member. Requires: parameters().set_trainable.
  void forward_backward(view<const std::int32_t, 2, space> inputs, view<const std::int32_t, 2, space> targets,
                        const pass_options& options) {
    workspace_scope scope(context());
    const index_t sequences = inputs.extent(0), positions = inputs.extent(1), models = router_.models();
    GRAFT_CHECK(inputs.size() > 0 && inputs.contiguous() && targets.contiguous() && targets.size() == inputs.size(),
                "forward_backward: expected inputs and targets of one shape, got ", sequences, " x ", positions,
                " and ", targets.extent(0), " x ", targets.extent(1));
    GRAFT_CHECK(!parameters().trainable().empty(),
                "forward_backward: no gradients are allocated, call parameters().set_trainable first");
    auto losses = context().template allocate<M>(models, inputs.size());
    forest_.member_losses(losses, inputs, targets);

    auto lengths = context().template allocate<std::int32_t>(sequences);
    launch_elements(
        context(), sequences,
        detail::prefix_length_element<space>{lengths, options.at, positions, std::min(options_.shortest, positions),
                                             std::min(options_.longest, positions)});
    auto logits = context().template allocate<M>(sequences, models), d_logits = logits;
    auto mean = context().template allocate<M>(sequences, router_.width());
    router_.forward(logits, mean, embedding(), inputs, lengths);
    d_logits = context().template allocate<M>(sequences, models);
    auto statistics = context().template allocate<M>(sequences, models + 3);
    launch_rows(context(), sequences, models * positions,
                detail::router_loss_row<M, space>{d_logits, statistics, logits, losses, targets, lengths,
                                                  options_.labels, options.token_scale});
    router_.backward(d_logits, mean);
    launch_rows(context(), models + 3, sequences, detail::column_sum_row<M, space>{metrics_.view(), statistics});
  }

  // Of training: loss_sum is that of the router, load the tokens that it would send to each member. Of evaluation:
  // those of the mixture. Cost: two synchronisations.
  pass_metrics metrics() const {
    pass_metrics result = forest_.metrics();
    const pass_metrics router = metrics_of(detail::sums_on_host(context(), metric_sums()));
    result.loss_sum += router.loss_sum;
    result.load[0] += router.load[0];
    return result;
  }
  // Of training, where they lie, and what they say once they are on the host; as of transformer.
  view<M, 1, space> metric_sums() const { return metrics_.view(); }
  pass_metrics metrics_of(const std::vector<double>& sums) const {
    const auto models = static_cast<std::size_t>(router_.models());
    layer_load load;
    load.counts.assign(sums.begin() + 1, sums.begin() + 1 + static_cast<std::ptrdiff_t>(models));
    load.tokens = sums[models + 1];
    return {sums[0], 0.0, {std::move(load)}};
  }
  // The share of the tokens trained on since the last clear_metrics() whose sequence the router sends to the member of
  // the lowest loss.
  double agreement() const {
    const std::vector<double> sums = detail::sums_on_host(context(), metric_sums());
    const auto models = static_cast<std::size_t>(router_.models());
    return sums[models + 1] > 0
               ? static_cast<double>(static_cast<M>(sums[models + 2]) / static_cast<M>(sums[models + 1]))
               : 0.0;
  }
  void clear_metrics() {
    fill_zero(context(), metrics_.view());
    forest_.clear_metrics();
  }
  void end_step() {}
  // As of transformer.
  recording_key recording() const {
    recording_key key = parameters().recording();
    for (const auto& member : members())
      if constexpr (requires { member->recording(); })
        key.append(member->recording());
      else
        key.append(recording_key(false));  // one that does not say is run each time
    return key;
  }

  // What a router's training rests on beside its weights, as text, for the signature of a run: the options, and members
  // by a hash of their weights. Cost: the first time, one read of all members' weights on the host.
  std::string signature() const {
    if (!signature_.empty()) return signature_;
    std::ostringstream text;
    text << "kept=" << options_.kept << " choose_from=" << options_.choose_from << " shortest=" << options_.shortest
         << " longest=" << options_.longest
         << " labels=" << (options_.labels == label_tokens::all ? "all" : "continuation") << std::hex;
    std::vector<M> values;
    for (std::size_t i = 0; i < members().size(); ++i) {
      const auto master = members()[i]->parameters().master();
      values.resize(static_cast<std::size_t>(master.extent(0)));
      copy_to_host(context(), values.data(), master);
      text << " member_" << i << '='
           << hash_memory(values.data(), values.size() * sizeof(M));
    }
    return signature_ = text.str();
  }

 private:
  view<const T, 2, space> embedding() const {
    return members().front()->parameters().weights().model.embed_tokens.matrix();
  }

  forest_type forest_;
  expert_routing_options options_;
  expert_router<Compute> router_;
  mutable std::string signature_;
  buffer<M, space> metrics_;  // router's loss, (C) tokens sent, tokens, tokens sent to the label
};

}  // namespace graft
