// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Branch-Train-Stitch: frozen models side by side, with trained stitch layers between them
//
//   h_i <- blocks of member i, from its own embedding;  behind block p_1 ... p_K:  h <- stitch_k(h);
//   logits = head_o(norm_o(h_o)),  o the output member
//
// What stitches read into what is a StitchTopology. Source: Zhang et al., "BTS: Harmonizing specialized experts into a
// generalist LLM", 2025, arXiv 2502.00075.
//
// Above 400 lines: training, evaluation, cached generation and gate values are walks over the same members and
// stitches.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <graft/core/hash.hpp>
#include <graft/layers/stitch.hpp>
#include <graft/models/member_stream.hpp>
#include <graft/policies/stitch_topology/any_topology.hpp>

namespace graft {

template <class Leaf>
struct stitched_parameters {
  using stitch_type = stitch_parameters<Leaf>;
  BOOST_HANA_DEFINE_STRUCT(stitched_parameters, (std::vector<stitch_type>, stitches));
};

// The declaration of all stitches between members of these widths. A constant expression.
constexpr stitched_parameters<parameter_spec> stitched_specs(const stitch_plan& plan,
                                                             const std::vector<index_t>& widths) {
  stitched_parameters<parameter_spec> specs;
  for (const stitch_step& step : plan.steps) specs.stitches.push_back(stitch_specs(step, widths));
  return specs;
}

struct stitch_options {
  index_t stitches = 0;  // K; 0: the topology's own number, 4 where there are as many blocks
  double dropout = 0.1;  // of gate logits, in training. Source: the paper has it without its rate
  // After experts were read into the hub they go on as they were, not as their projections: the prose of the paper
  // rather than its equations. Required where their widths differ and they are read again.
  bool carry_raw_expert_state = false;
};

// What a stitched model keeps of one sequence: the cache of each of its members.
template <class Cache>
struct stitched_cache {
  std::vector<Cache> members;
  index_t length = 0;  // positions held

  void clear() {
    for (Cache& cache : members) cache.clear();
    length = 0;
  }
};

// The k members with the highest scores beside the output, in ascending order: what set_active takes, of the scores
// that a router has for a sequence. scores: one for each member. Order: ties go to the lower member.
inline std::vector<int> highest_scoring_experts(const std::vector<double>& scores, index_t k, index_t output = 0) {
  GRAFT_CHECK(
      k >= 0 && k < static_cast<index_t>(scores.size()) && output >= 0 && output < static_cast<index_t>(scores.size()),
      "highest_scoring_experts: expected fewer experts than the ", scores.size(),
      " members and an output among them, got k=", k, ", output=", output);
  std::vector<int> experts(scores.size());
  std::iota(experts.begin(), experts.end(), 0);
  experts.erase(experts.begin() + static_cast<std::ptrdiff_t>(output));
  std::stable_sort(experts.begin(), experts.end(), [&](int a, int b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  experts.resize(static_cast<std::size_t>(k));
  std::sort(experts.begin(), experts.end());
  return experts;
}

// Members are shared and never written: they have no gradients and no optimizer state here, and parameters() are the
// stitches alone. Blocks of a member that no later stitch reads are not run, and one head is computed.
template <StitchTopology Topology = any_topology, class Compute = compute<fp32, cpu>,
          class Member = dense_transformer<Compute>>
class stitched_transformer {
 public:
  using topology_type = Topology;
  using compute_type = Compute;
  using member_type = Member;
  using mixture_type = no_mixture;  // of the parameters that it has itself
  using context_type = typename Compute::context_type;
  using space = typename Compute::space;
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using cache_type = stitched_cache<typename Member::cache_type>;
  template <class Leaf>
  using tree = stitched_parameters<Leaf>;
  static_assert(check_stitch_topology<Topology>());

  // Parameters are zero until initialize() or until they are loaded into parameters().master(), followed by refresh().
  // The context must outlive the model. Members must not be written while the model is in use.
  // Errors: members of different vocabularies or numbers of blocks; a topology or options that do not fit them.
  stitched_transformer(context_type& context, const std::vector<std::shared_ptr<Member>>& members,
                       const Topology& topology = {}, const stitch_options& options = {})
      : context_(&context),
        topology_(topology),
        options_(options),
        widths_(widths_of(members)),
        plan_(topology.plan(members.front()->shape().blocks, options.stitches, static_cast<index_t>(members.size()))),
        shape_((checked(), members[static_cast<std::size_t>(plan_.output)]->shape())),
        parameters_(stitched_specs(plan_, widths_)),
        metrics_(1) {
    for (const auto& member : members) {
      streams_.emplace_back(member);
      shape_.positions = std::min(shape_.positions, member->shape().positions);
    }
    saved_.resize(plan_.steps.size());
    d_.known.resize(streams_.size());
    d_.now.resize(streams_.size());
    d_.spare.resize(streams_.size());
    states_.resize(streams_.size());
    activate_all();
  }

  context_type& context() const { return *context_; }
  // Of the output member, with the fewest positions of any.
  const transformer_shape& shape() const { return shape_; }
  const Topology& topology() const { return topology_; }
  const stitch_options& options() const { return options_; }
  const stitch_plan& plan() const { return plan_; }
  index_t size() const { return static_cast<index_t>(streams_.size()); }
  const std::vector<index_t>& widths() const { return widths_; }
  const std::shared_ptr<Member>& member(index_t i) const { return stream(i).shared(); }
  parameter_store<tree, Compute>& parameters() { return parameters_; }
  const parameter_store<tree, Compute>& parameters() const { return parameters_; }
  const parameter_layout& layout() const { return parameters_.layout(); }

  // Of the members and the stitches.
  index_t parameter_count() const {
    index_t count = layout().parameter_count();
    for (const auto& each : streams_) count += each.member().layout().parameter_count();
    return count;
  }

  // Identity projections and gates that weigh all alike; the seed decides nothing.
  void initialize(std::uint64_t seed = 0) { parameters_.initialize(*context_, seed); }

  // Which experts run from here on, beside the output, which always does: the others' blocks are not computed, and the
  // gates are softmaxes over those that are left, as if the stitches had been built without the others. For a router
  // that picks experts for a sequence; every sequence of a pass has the same. What runs also decides what is trained.
  // Errors: members that there are not, or twice.
  void set_active(const std::vector<int>& experts) {
    std::vector<char> active(streams_.size(), 0);
    for (const int expert : experts) {
      GRAFT_CHECK(
          expert >= 0 && expert < static_cast<int>(active.size()) && active[static_cast<std::size_t>(expert)] == 0,
          "set_active: expected different members from 0 to ", active.size() - 1, ", got ", expert);
      active[static_cast<std::size_t>(expert)] = 1;
    }
    active[static_cast<std::size_t>(plan_.output)] = 1;
    const stitch_plan running = restrict_stitch_plan(plan_, active);
    active_ = active;
    steps_.clear();
    runs_.clear();
    for (std::size_t k = 0; k < running.steps.size(); ++k) {
      steps_.emplace_back(running.steps[k], widths_);
      runs_.push_back(states_read(running, k));
    }
    runs_.push_back(states_read(running, running.steps.size()));
  }
  void activate_all() {
    std::vector<int> all(streams_.size());
    std::iota(all.begin(), all.end(), 0);
    set_active(all);
  }
  bool active(index_t member) const { return active_[static_cast<std::size_t>(member)] != 0; }

  // Adds to the gradients of the stitches those of token_scale * sum of cross entropies, and to the metrics.
  // Shapes, padding and requirements: as of transformer::forward_backward. Members run as in evaluation; gate logits
  // are dropped as options.at says. Cost: the members' forward passes; behind the first stitch gradients of
  // activations, none of weights; one head; no host synchronisation.
  void forward_backward(view<const std::int32_t, 2, space> inputs, view<const std::int32_t, 2, space> targets,
                        const pass_options& options) {
    workspace_scope scope(*context_);
    const index_t rows = inputs.size();
    detail::check_training_batch(inputs, targets, parameters_.trainable());
    const auto last = run_members(inputs, options.at, true);
    auto normed = context_->template allocate<T>(rows, shape_.width);
    auto inverse_rms = context_->template allocate<M>(rows);
    add_rms_norm_forward(*context_, last, normed, inverse_rms, last, {}, output().norm(), shape_.norm_eps);

    for (std::size_t i = 0; i < streams_.size(); ++i) {
      d_.known[i] = 0;
      if (runs_[0][i] == 0) continue;
      d_.now[i] = context_->template allocate<T>(rows, widths_[i]);
      d_.spare[i] = context_->template allocate<T>(rows, widths_[i]);
    }
    const auto out = static_cast<std::size_t>(plan_.output);
    auto losses = context_->template allocate<M>(rows);
    linear_cross_entropy_backward(*context_, losses, d_.spare[out], view<M, 2, space>{}, normed, output().head(),
                                  reshape(targets, rows), options.token_scale);
    sum<context_type, M>(*context_, metrics_.view(), losses, accumulate::yes);
    rms_norm_backward(*context_, d_.now[out], view<M, 1, space>{}, d_.spare[out], last, inverse_rms, output().norm(),
                      accumulate::no);
    d_.known[out] = 1;
    for (std::size_t k = steps_.size(); k-- > 0;) {
      stitch_backward(pass_of(k, options.at), steps_[k], parameters_.weights().stitches[k],
                      parameters_.gradient_views().stitches[k], saved_[k], d_, k > 0);
      for (std::size_t i = 0; k > 0 && i < streams_.size(); ++i)
        if (d_.known[i] != 0) streams_[i].backward(steps_[k - 1].step.after, steps_[k].step.after, d_.now[i]);
    }
  }

  // losses (B S): the cross entropy of every token in nats, 0 where there is no target. Adds to the metrics.
  void token_losses(view<M, 1, space> losses, view<const std::int32_t, 2, space> inputs,
                    view<const std::int32_t, 2, space> targets) {
    workspace_scope scope(*context_);
    linear_cross_entropy(*context_, losses, hidden_states(inputs), output().head(), reshape(targets, targets.size()));
    sum<context_type, M>(*context_, metrics_.view(), losses, accumulate::yes);
  }

  // logits (B, V) of the last position of every sequence. Shapes: inputs (B, S).
  void next_token_logits(view<M, 2, space> logits, view<const std::int32_t, 2, space> inputs) {
    check_causal();
    workspace_scope scope(*context_);
    view<T, 2, space> last = hidden_states(inputs).rows(inputs.extent(1) - 1, inputs.size());
    last.extents[0] = inputs.extent(0);
    last.strides[0] = inputs.extent(1) * shape_.width;
    gemm_nt(*context_, logits, last, output().head(), accumulate::no);
  }

  // logits (B S, V) of every position: for comparison with other implementations on small models.
  void logits(view<M, 2, space> out, view<const std::int32_t, 2, space> inputs) {
    workspace_scope scope(*context_);
    gemm_nt(*context_, out, hidden_states(inputs), output().head(), accumulate::no);
  }

  // Whether every member can.
  bool can_cache() const {
    return std::all_of(streams_.begin(), streams_.end(), [](const auto& each) { return each.member().can_cache(); });
  }

  // An empty cache for one sequence of up to `limit` positions. Members that do not run have none: it serves until
  // set_active.
  cache_type make_cache(index_t limit) const {
    cache_type cache;
    for (std::size_t i = 0; i < streams_.size(); ++i)
      cache.members.push_back(runs_[0][i] != 0 ? streams_[i].member().make_cache(limit)
                                               : typename Member::cache_type{});
    return cache;
  }

  // Runs tokens at the positions from cache.length on and adds them to the cache. logits (V): of the last one.
  // Shapes: tokens (n). Requires: no padding among them; the experts that were active when the cache was made.
  // Errors: members that cannot cache; more tokens than the cache has room for. No host synchronisation.
  void extend(cache_type& cache, view<const std::int32_t, 1, space> tokens, view<M, 1, space> logits) {
    check_causal();
    GRAFT_CHECK(can_cache(),
                "stitched_transformer: expected members that read each token alone, got one whose gate, "
                "router or layout reads others too. Generate with use_cache = false");
    GRAFT_CHECK(cache.members.size() == streams_.size(), "extend: expected a cache of ", streams_.size(),
                " members, got ", cache.members.size());
    GRAFT_CHECK(logits.extent(0) == shape_.vocabulary && logits.contiguous() && tokens.contiguous(),
                "extend: expected contiguous tokens and ", shape_.vocabulary, " contiguous logits, got ",
                logits.extent(0), " logits");
    const index_t count = tokens.extent(0);
    for (std::size_t i = 0; i < streams_.size(); ++i) {
      if (runs_[0][i] == 0) continue;
      GRAFT_CHECK(cache.members[i].length == cache.length, "extend: expected ", cache.length,
                  " positions in the cache of member ", i, ", got ", cache.members[i].length,
                  ": other experts were active, make a new cache");
      cache.members[i].check_room(count);
    }
    workspace_scope scope(*context_);
    const auto last = hidden_states(reshape(tokens, index_t{1}, count), &cache).rows(count - 1, count);
    gemm_nt(*context_, reshape(logits, index_t{1}, shape_.vocabulary), last, output().head(), accumulate::no);
    for (std::size_t i = 0; i < streams_.size(); ++i)
      if (runs_[0][i] != 0) cache.members[i].length += count;
    cache.length += count;
  }

  // values (K, B S, N, N): how much of member `from` is in member `into` behind each stitch, the mean over channels;
  // see stitch_gate_means. The curves of figures 2 and 3 of the paper are [k, t, output, i] and [k, t, i, output].
  void gate_values(view<M, 4, space> values, view<const std::int32_t, 2, space> inputs) {
    const index_t rows = inputs.size(), members = size();
    GRAFT_CHECK(values.extent(0) == static_cast<index_t>(steps_.size()) && values.extent(1) == rows &&
                    values.extent(2) == members && values.extent(3) == members && values.contiguous(),
                "gate_values: expected room for ", steps_.size(), " x ", rows, " x ", members, " x ", members,
                " values, got ", values.extent(0), " x ", values.extent(1), " x ", values.extent(2), " x ",
                values.extent(3));
    workspace_scope scope(*context_);
    run_members(inputs, {}, true);
    for (std::size_t k = 0; k < steps_.size(); ++k)
      stitch_gate_means(pass_of(k, {}), steps_[k], saved_[k], values[static_cast<index_t>(k)]);
  }

  // Sums since the last clear_metrics(); there is no load. Cost: one synchronisation.
  pass_metrics metrics() const { return metrics_of(detail::sums_on_host(*context_, metric_sums())); }
  // As of transformer.
  view<M, 1, space> metric_sums() const { return metrics_.view(); }
  pass_metrics metrics_of(const std::vector<double>& sums) const { return {sums[0], 0.0, {}}; }
  void clear_metrics() { fill_zero(*context_, metrics_.view()); }
  void end_step() {}
  // As of transformer.
  recording_key recording() const {
    recording_key key;
    key.append(parameters_.recording());
    for (const auto& each : streams_) key.append(each.recording());
    for (const char each : active_) key.append(static_cast<std::uint64_t>(each));
    return key;
  }

  // What the stitches are and what they stand between, as text, for the signature of a run. Members count by a hash of
  // their weights. Cost: the first time, one read of all members' weights on the host.
  std::string signature() const {
    if (signature_.empty()) {
      std::ostringstream text;
      text.precision(17);
      text << "topology=" << static_cast<const char*>(topology_.name) << " stitches=" << plan_.steps.size()
           << " output=" << plan_.output << " dropout=" << options_.dropout
           << " carry_raw_expert_state=" << options_.carry_raw_expert_state << std::hex;
      std::vector<M> values;
      for (std::size_t i = 0; i < streams_.size(); ++i) {
        const auto master = streams_[i].member().parameters().master();
        values.resize(static_cast<std::size_t>(master.extent(0)));
        copy_to_host(*context_, values.data(), master);
        text << " member_" << i << '='
             << hash_memory(values.data(), values.size() * sizeof(M));
      }
      signature_ = text.str();
    }
    std::string text = signature_ + " active=";
    for (const char each : active_) text += each != 0 ? '1' : '0';
    return text;
  }

 private:
  using token_view = view<const std::int32_t, 2, space>;

  static std::vector<index_t> widths_of(const std::vector<std::shared_ptr<Member>>& members) {
    GRAFT_CHECK(members.size() >= 2 && members.size() <= most_stitched_members,
                "stitched_transformer: expected two to ", int{most_stitched_members}, " members, got ", members.size());
    std::vector<index_t> widths;
    for (const auto& member : members) {
      GRAFT_CHECK(member != nullptr, "stitched_transformer: expected members, got a null pointer");
      const transformer_shape &first = members.front()->shape(), &shape = member->shape();
      GRAFT_CHECK(shape.vocabulary == first.vocabulary && shape.blocks == first.blocks,
                  "stitched_transformer: expected members of one vocabulary and number of blocks, got ",
                  first.vocabulary, " tokens and ", first.blocks, " blocks, and ", shape.vocabulary, " tokens and ",
                  shape.blocks, " blocks");
      widths.push_back(shape.width);
    }
    return widths;
  }

  void checked() const {
    check_stitch_plan(plan_, topology_.name);
    GRAFT_CHECK(plan_.members == static_cast<index_t>(widths_.size()), "stitched_transformer: expected a plan of ",
                widths_.size(), " members, got one of ", plan_.members);
    GRAFT_CHECK(options_.dropout >= 0 && options_.dropout < 1,
                "stitched_transformer: expected a dropout in [0, 1), got ", options_.dropout);
    for (std::size_t k = 0; k < plan_.steps.size() && !options_.carry_raw_expert_state; ++k) {
      const std::vector<char> read = states_read(plan_, k + 1);
      for (const stitch_merge& merge : plan_.steps[k].merges)
        for (const index_t source : merge.from)
          GRAFT_CHECK(!merge.rewrites || read[static_cast<std::size_t>(source)] == 0 ||
                          widths_[static_cast<std::size_t>(source)] == widths_[static_cast<std::size_t>(merge.into)],
                      "stitched_transformer: expected members of one width where a member goes on as its projection, "
                      "got widths ",
                      widths_[static_cast<std::size_t>(source)], " and ", widths_[static_cast<std::size_t>(merge.into)],
                      ". Set carry_raw_expert_state");
    }
  }

  const member_stream<Member>& stream(index_t i) const {
    GRAFT_CHECK(i >= 0 && i < size(), "stitched_transformer: expected a member from 0 to ", size() - 1, ", got ", i);
    return streams_[static_cast<std::size_t>(i)];
  }
  const member_stream<Member>& output() const { return streams_[static_cast<std::size_t>(plan_.output)]; }

  stitch_pass<Compute> pass_of(std::size_t k, const pass_position& at) const {
    return {*context_, at, static_cast<index_t>(k), options_.dropout, options_.carry_raw_expert_state};
  }

  void check_causal() const {
    for (const auto& each : streams_) {
      if constexpr (!requires { std::bool_constant<Member::mixture_type::causal()>{}; })
        GRAFT_CHECK(
            each.member().mixture().causal(),
            "stitched_transformer: the router or the layout of a member looks at later tokens, which generation "
            "does not have. Use causal ones");
      else
        static_assert(
            Member::mixture_type::causal(),
            "graft::stitched_transformer: the router or the layout of the members looks at later tokens, which "
            "generation does not have. Use causal ones.");
    }
  }

  // The output member's state behind the last stitch, (B S, D), in the caller's workspace scope. keep: for the backward
  // pass, which goes down to the first stitch, so that nothing below it is kept.
  view<T, 2, space> run_members(token_view inputs, const pass_position& at, bool keep,
                                const cache_type* cache = nullptr) {
    const index_t rows = inputs.size();
    for (std::size_t i = 0; i < streams_.size(); ++i)
      if (runs_[0][i] != 0) streams_[i].begin(*context_, inputs, cache != nullptr ? &cache->members[i] : nullptr);
    index_t first = 0;
    for (std::size_t k = 0; k < steps_.size(); ++k) {
      const bool keep_blocks = keep && k > 0;
      for (std::size_t i = 0; i < streams_.size(); ++i) {
        states_[i] = {};
        if (runs_[k][i] == 0) continue;
        streams_[i].run(first, steps_[k].step.after, keep_blocks);
        states_[i] = streams_[i].state(keep_blocks);
      }
      stitch_forward(pass_of(k, at), steps_[k], parameters_.weights().stitches[k], rows, states_, saved_[k], keep);
      for (std::size_t i = 0; i < streams_.size(); ++i)
        if (runs_[k + 1][i] != 0) streams_[i].set_state(states_[i]);
      first = steps_[k].step.after;
    }
    return states_[static_cast<std::size_t>(plan_.output)];
  }

  // The same, normalised. Nothing is kept.
  view<T, 2, space> hidden_states(token_view inputs, const cache_type* cache = nullptr) {
    const auto last = run_members(inputs, {}, false, cache);
    auto normed = context_->template allocate<T>(last.extent(0), last.extent(1));
    auto inverse_rms = context_->template allocate<M>(last.extent(0));
    add_rms_norm_forward(*context_, last, normed, inverse_rms, last, {}, output().norm(), shape_.norm_eps);
    return normed;
  }

  context_type* context_;
  Topology topology_;
  stitch_options options_;
  std::vector<index_t> widths_;
  stitch_plan plan_;
  transformer_shape shape_;
  parameter_store<tree, Compute> parameters_;
  buffer<M, space> metrics_;
  std::vector<member_stream<Member>> streams_;
  std::vector<char> active_;
  std::vector<stitch_layout> steps_;     // of what is active
  std::vector<std::vector<char>> runs_;  // which members run up to each stitch, and behind the last
  std::vector<stitch_saved<Compute>> saved_;
  std::vector<view<T, 2, space>> states_;
  state_gradients<Compute> d_;
  mutable std::string signature_;
};

}  // namespace graft
