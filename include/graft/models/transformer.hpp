// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The decoder-only transformer of the Llama family, with dense feed-forward layers or mixtures of experts: embedding,
// blocks, final norm, head. dense_transformer and moe_transformer are its two forms.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <graft/layers/block.hpp>
#include <graft/models/kv_cache.hpp>
#include <graft/models/layer_load.hpp>
#include <graft/models/parameter_store.hpp>
#include <graft/ops/embedding.hpp>
#include <graft/ops/linear_cross_entropy.hpp>
#include <graft/ops/reduction.hpp>

namespace graft {

template <class Leaf, class Mixture>
struct transformer_body_parameters {
  using block_type = block_parameters<Leaf, Mixture>;
  BOOST_HANA_DEFINE_STRUCT(transformer_body_parameters, (Leaf, embed_tokens), (std::vector<block_type>, layers),
                           (Leaf, norm));
};
template <class Leaf, class Mixture>
struct transformer_parameters {
  using body_type = transformer_body_parameters<Leaf, Mixture>;
  BOOST_HANA_DEFINE_STRUCT(transformer_parameters, (body_type, model), (Leaf, lm_head));
};

// The declaration of all parameters. A constant expression over the shape.
template <class Mixture = no_mixture>
constexpr transformer_parameters<parameter_spec, Mixture> transformer_specs(const transformer_shape& shape,
                                                                            const Mixture& mixture = {}) {
  transformer_parameters<parameter_spec, Mixture> specs;
  specs.model.embed_tokens =
      parameter_spec::matrix(role::embedding, shape.vocabulary, shape.width, initializer::normal(0.02));
  specs.model.layers.resize(static_cast<std::size_t>(shape.blocks));
  for (index_t block = 0; block < shape.blocks; ++block)
    specs.model.layers[static_cast<std::size_t>(block)] = block_specs(shape, mixture, block);
  specs.model.norm = parameter_spec::vector(role::norm, shape.width, initializer::ones());
  if (!shape.tied)
    specs.lm_head = parameter_spec::matrix(role::head, shape.vocabulary, shape.width, initializer::normal(0.02));
  return specs;
}

// How one micro-batch counts in the step it is part of.
struct pass_options {
  // Factor of the summed token losses: 1 / targets of the whole step gives their mean. From step to step it may change,
  // and a trainer gives its place; what follows, and what of `at` is no step_value, is the same in every step.
  step_value<double> token_scale = 1.0;
  double auxiliary_scale = 1.0;  // factor of the balancers' losses: 1 / micro-batches of the step
  index_t balance_groups = 1;    // runs of tokens whose load is balanced separately
  pass_position at{.training = true};
};

// What passes since the last clear added up to; see transformer::metrics.
struct pass_metrics {
  double loss_sum = 0;           // nats, over tokens with a target
  double auxiliary_sum = 0;      // balancers' losses, summed over layers and passes
  std::vector<layer_load> load;  // of every block; counts are empty for a dense one
};

namespace detail {

// What passes added up, from the memory of the context. One synchronisation.
template <class Context, class M, class Space>
std::vector<double> sums_on_host(Context& context, view<M, 1, Space> sums) {
  std::vector<M> values(static_cast<std::size_t>(sums.extent(0)));
  copy_to_host(context, values.data(), sums);
  return {values.begin(), values.end()};
}

// trainable: what parameter_store::set_trainable decided.
template <class Space>
void check_training_batch(view<const std::int32_t, 2, Space> inputs, view<const std::int32_t, 2, Space> targets,
                          const std::vector<bool>& trainable) {
  GRAFT_CHECK(inputs.size() > 0 && inputs.contiguous() && targets.contiguous() && targets.size() == inputs.size(),
              "forward_backward: expected inputs and targets of one shape, got ", inputs.extent(0), " x ",
              inputs.extent(1), " and ", targets.extent(0), " x ", targets.extent(1));
  GRAFT_CHECK(!trainable.empty(),
              "forward_backward: no gradients are allocated, call parameters().set_trainable first");
}

}  // namespace detail

template <class Mixture, class Compute>
class transformer {
 public:
  using compute_type = Compute;
  using mixture_type = Mixture;
  using context_type = typename Compute::context_type;
  using space = typename Compute::space;
  using T = typename Compute::storage;
  using M = typename Compute::master;
  using cache_type = kv_cache<Compute>;
  template <class Leaf>
  using tree = transformer_parameters<Leaf, Mixture>;

  // Parameters are zero until initialize() or until they are loaded into parameters().master(), followed by refresh().
  // The context must outlive the model.
  transformer(context_type& context, const transformer_shape& shape) requires std::default_initializable<Mixture>
      : transformer(context, shape, Mixture{}) {}
  transformer(context_type& context, const transformer_shape& shape, const Mixture& mixture)
      : context_(&context),
        shape_(checked(shape, mixture)),
        mixture_(mixture),
        parameters_(transformer_specs(shape, mixture)),
        metrics_(2 + shape.blocks * load_columns().size()),
        saved_(static_cast<std::size_t>(shape.blocks)) {}

  context_type& context() const { return *context_; }
  const transformer_shape& shape() const { return shape_; }
  const Mixture& mixture() const { return mixture_; }
  Mixture& mixture() { return mixture_; }
  parameter_store<tree, Compute>& parameters() { return parameters_; }
  const parameter_store<tree, Compute>& parameters() const { return parameters_; }
  const parameter_layout& layout() const { return parameters_.layout(); }

  void initialize(std::uint64_t seed) { parameters_.initialize(*context_, seed); }

  // Adds to the gradients those of
  //   token_scale * sum of cross entropies + auxiliary_scale * sum over layers of the balancer's loss
  // and to the metrics. Shapes: inputs, targets (B, S); a target of -1 is none. An input of -1 is padding and has no
  // target; it must stand behind the tokens of its sequence, since attention masks the future alone. Padding is routed
  // nowhere and in no statistics. Requires: parameters().set_trainable was called. No host synchronisation; no
  // allocation after the first call with the same shapes.
  void forward_backward(view<const std::int32_t, 2, space> inputs, view<const std::int32_t, 2, space> targets,
                        const pass_options& options) {
    workspace_scope scope(*context_);
    const index_t rows = inputs.size();
    detail::check_training_batch(inputs, targets, parameters_.trainable());
    const auto tokens = reshape(inputs, rows);
    block_pass<Compute> pass = make_pass(inputs, options.balance_groups, options.at);
    const auto& weights = parameters_.weights();
    const auto& gradients = parameters_.gradient_views();

    auto stream = context_->template allocate<T>(rows, shape_.width);
    auto delta = context_->template allocate<T>(rows, shape_.width);
    embedding_forward(*context_, stream, weights.model.embed_tokens.matrix(), tokens);
    for (std::size_t layer = 0; layer < saved_.size(); ++layer) {
      enter_block(pass, layer, true);
      saved_[layer] = block_forward<Mixture, Compute>(
          pass, mixture_, weights.model.layers[layer], stream,
          layer == 0 ? view<const T, 2, space>{} : view<const T, 2, space>(delta), delta, true);
    }
    auto last_stream = context_->template allocate<T>(rows, shape_.width);
    auto normed = context_->template allocate<T>(rows, shape_.width);
    auto inverse_rms = context_->template allocate<M>(rows);
    add_rms_norm_forward(*context_, last_stream, normed, inverse_rms, stream, delta, weights.model.norm.vector(),
                         shape_.norm_eps);

    auto losses = context_->template allocate<M>(rows);
    const auto d_normed = delta;  // spent
    linear_cross_entropy_backward(*context_, losses, d_normed, head_gradient(gradients), normed, head(weights),
                                  reshape(targets, rows), options.token_scale);
    sum<context_type, M>(*context_, metrics_.view().rows(0, 1), losses, accumulate::yes);

    const auto d_stream = normed;  // spent
    rms_norm_backward(*context_, d_stream, gradients.model.norm.vector(), d_normed, last_stream, inverse_rms,
                      weights.model.norm.vector(), accumulate::no);
    for (std::size_t layer = saved_.size(); layer-- > 0;) {
      enter_block(pass, layer, false);
      block_backward<Mixture, Compute>(pass, mixture_, weights.model.layers[layer], gradients.model.layers[layer],
                                       saved_[layer], d_stream, options.auxiliary_scale);
    }
    if (gradients.model.embed_tokens.present())
      embedding_backward(*context_, gradients.model.embed_tokens.matrix(), d_stream, tokens);
  }

  // losses (B S): the cross entropy of every token in nats, 0 where there is no target. Adds to the metrics.
  void token_losses(view<M, 1, space> losses, view<const std::int32_t, 2, space> inputs,
                    view<const std::int32_t, 2, space> targets) {
    workspace_scope scope(*context_);
    const auto normed = hidden_states(inputs);
    linear_cross_entropy(*context_, losses, normed, head(parameters_.weights()), reshape(targets, targets.size()));
    sum<context_type, M>(*context_, metrics_.view().rows(0, 1), losses, accumulate::yes);
  }

  // logits (B, V) of the last position of every sequence. Shapes: inputs (B, S).
  void next_token_logits(view<M, 2, space> logits, view<const std::int32_t, 2, space> inputs) {
    if constexpr (requires { std::bool_constant<Mixture::causal()>{}; })
      static_assert(Mixture::causal(),
                    "graft::transformer: the router or the layout looks at later tokens, which generation does not "
                    "have. Use causal "
                    "ones.");
    else
      GRAFT_CHECK(
          mixture_.causal(),
          "graft::transformer: the router or the layout looks at later tokens, which generation does not have. Use "
          "causal ones");
    workspace_scope scope(*context_);
    view<T, 2, space> last = hidden_states(inputs).rows(inputs.extent(1) - 1, inputs.size());
    last.extents[0] = inputs.extent(0);
    last.strides[0] = inputs.extent(1) * shape_.width;
    gemm_nt(*context_, logits, last, head(parameters_.weights()), accumulate::no);
  }

  // Whether extend gives what next_token_logits gives: not where something beside attention reads the context, such as
  // a gate or a capacity, since a cache holds keys and values alone.
  bool can_cache() const { return !detail::mixture_reads_context(mixture_); }

  // An empty cache for one sequence of up to `limit` positions.
  cache_type make_cache(index_t limit) const {
    return cache_type(shape_.blocks, limit, detail::attention_policy(mixture_).cache_width(shape_));
  }

  // Runs tokens at the positions from cache.length on and adds them to the cache. logits (V): of the last one.
  // Shapes: tokens (n). Requires: no padding among them. Random numbers of routers are those of an uncached pass.
  // Errors: a model that cannot cache; more tokens than the cache has room for. Cost: for a token one read of all
  // weights that it uses and of the cache; no allocation after the first call with as many tokens, no synchronisation.
  void extend(cache_type& cache, view<const std::int32_t, 1, space> tokens, view<M, 1, space> logits) {
    GRAFT_CHECK(can_cache(),
                "graft::transformer: expected a mixture that reads each token alone, got one whose gate, router or "
                "layout reads others too. Generate with use_cache = false");
    cache.check_room(tokens.extent(0));
    GRAFT_CHECK(logits.extent(0) == shape_.vocabulary && logits.contiguous() && tokens.contiguous(),
                "extend: expected contiguous tokens and ", shape_.vocabulary, " contiguous logits, got ",
                logits.extent(0), " logits");
    workspace_scope scope(*context_);
    const index_t count = tokens.extent(0);
    const auto last = hidden_states(reshape(tokens, index_t{1}, count), &cache).rows(count - 1, count);
    gemm_nt(*context_, reshape(logits, index_t{1}, shape_.vocabulary), last, head(parameters_.weights()),
            accumulate::no);
    cache.length += count;
  }

  // logits (B S, V) of every position: for comparison with other implementations on small models.
  void logits(view<M, 2, space> out, view<const std::int32_t, 2, space> inputs) {
    workspace_scope scope(*context_);
    gemm_nt(*context_, out, hidden_states(inputs), head(parameters_.weights()), accumulate::no);
  }

  // Sums since the last clear_metrics(); reading does not clear. Cost: one synchronisation.
  pass_metrics metrics() const { return metrics_of(detail::sums_on_host(*context_, metric_sums())); }
  // The same in two parts, for whoever copies them along with other numbers or adds them up over ranks: where the sums
  // lie (the loss first; all of them may be added to those of other ranks), and what they say once they are on the
  // host.
  view<M, 1, space> metric_sums() const { return metrics_.view(); }
  pass_metrics metrics_of(const std::vector<double>& sums) const {
    pass_metrics result;
    result.loss_sum = sums[0];
    result.auxiliary_sum = sums[1];
    const routing_load at = load_columns();
    for (index_t block = 0; block < shape_.blocks; ++block) {
      layer_load load;
      if (block_is_mixture<Mixture>(shape_, block) && at.columns > 0) {
        const double* row = sums.data() + 2 + block * at.size();
        load.counts.assign(row, row + expert_count());
        load.tokens = row[at.tokens()];
        load.empty_slots =
            load.tokens * static_cast<double>(at.slots) - std::accumulate(load.counts.begin(), load.counts.end(), 0.0);
        load.entropy_sum = row[at.entropy()];
        load.dropped_slots = row[at.dropped()];
      }
      result.load.push_back(std::move(load));
    }
    return result;
  }

  // Shows what the routers choose in every forward pass from now on; nullptr: to nobody. An observer must live as long.
  void observe_routing(routing_observer<M, space>* observer) { observer_ = observer; }

  // Once after each optimizer step, before clear_metrics(): what balancers keep moves by the load of the step.
  void end_step() {
    if constexpr (Mixture::present)
      for (std::size_t layer = 0; layer < saved_.size(); ++layer)
        if (block_is_mixture<Mixture>(shape_, static_cast<index_t>(layer)))
          mixture_.template end_step<Compute>(
              *context_, parameters_.master_views().model.layers[layer].block_sparse_moe, load_of(layer));
  }
  void clear_metrics() { fill_zero(*context_, metrics_.view()); }

  // What decides, beside the shapes of a batch, which work forward_backward queues: a recording of it
  // (backend/recorded_step.hpp) holds for as long as this stays the same. Options of policies are not in it: who
  // changes one in the middle of a training turns recording off.
  recording_key recording() const {
    recording_key key{observer_ == nullptr};  // an observer is called on the host, which a replay does not do
    key.append(parameters_.recording());
    key.append(rope_.data());
    return key;
  }

 private:
  static const transformer_shape& checked(const transformer_shape& shape, const Mixture& mixture) {
    check_shape(shape);
    mixture.check(shape);
    return shape;
  }

  // held: positions of the sequence that stand in a cache before the inputs.
  block_pass<Compute> make_pass(view<const std::int32_t, 2, space> inputs, index_t balance_groups,
                                const pass_position& at, index_t held = 0) {
    const index_t positions = inputs.extent(1);
    if (held + positions > rope_positions_) {
      const index_t wanted = std::max(held + positions, shape_.positions);
      const std::vector<M> table = rope_table<M>(shape_, wanted);
      rope_ = buffer<M, space>(static_cast<index_t>(table.size()));
      copy_from_host(*context_, rope_.view(), table.data());
      rope_positions_ = wanted;
    }
    routing_pass<M, space> routing;
    routing.at = at;
    routing.positions = positions;
    routing.balance_groups = balance_groups;
    routing.ids = reshape(inputs, inputs.size());
    routing.observer = observer_;
    return {*context_, shape_, view<const M, 2, space>(rope_.data(), rope_positions_, shape_.head_dim), positions,
            routing};
  }

  // What the routing of a block needs. count: whether its load and the balancer's loss are added to the metrics.
  void enter_block(block_pass<Compute>& pass, std::size_t layer, bool count) {
    pass.routing.layer = static_cast<index_t>(layer);
    if constexpr (Mixture::present) {
      pass.routing.experts = mixture_.experts(shape_);
      if (block_is_mixture<Mixture>(shape_, pass.routing.layer))
        pass.routing.selection_bias =
            mixture_.template selection_bias<Compute>(parameters_.master_views().model.layers[layer].block_sparse_moe);
      pass.routing.load = count ? load_of(layer) : view<M, 1, space>{};
      pass.routing.loss = count ? metrics_.view().rows(1, 2) : view<M, 1, space>{};
    }
  }
  view<M, 1, space> load_of(std::size_t layer) const {
    const index_t size = load_columns().size(), first = 2 + static_cast<index_t>(layer) * size;
    return metrics_.view().rows(first, first + size);
  }

  auto head(const tree<typename Compute::weight>& weights) const {
    return shape_.tied ? weights.model.embed_tokens.matrix() : weights.lm_head.matrix();
  }
  auto head_gradient(const tree<typename Compute::gradient>& gradients) const {
    return shape_.tied ? gradients.model.embed_tokens.matrix() : gradients.lm_head.matrix();
  }

  // The normalised output of the last block, (B S, D), in the caller's workspace scope. Keeps nothing else. With a
  // cache the inputs (1, S) go on its sequence.
  view<T, 2, space> hidden_states(view<const std::int32_t, 2, space> inputs, const cache_type* cache = nullptr) {
    const index_t rows = inputs.size(), held = cache != nullptr ? cache->length : 0;
    block_pass<Compute> pass = make_pass(inputs, 1, {.first_token = held}, held);
    const auto& weights = parameters_.weights();
    auto normed = context_->template allocate<T>(rows, shape_.width);
    auto stream = context_->template allocate<T>(rows, shape_.width);
    auto delta = context_->template allocate<T>(rows, shape_.width);
    auto inverse_rms = context_->template allocate<M>(rows);
    embedding_forward(*context_, stream, weights.model.embed_tokens.matrix(), reshape(inputs, rows));
    for (std::size_t layer = 0; layer < saved_.size(); ++layer) {
      workspace_scope scope(*context_);
      enter_block(pass, layer, true);
      if (cache != nullptr) pass.cache = cache->view_of(static_cast<index_t>(layer));
      saved_[layer] = block_forward<Mixture, Compute>(
          pass, mixture_, weights.model.layers[layer], stream,
          layer == 0 ? view<const T, 2, space>{} : view<const T, 2, space>(delta), delta, false);
    }
    add_rms_norm_forward(*context_, stream, normed, inverse_rms, stream, delta, weights.model.norm.vector(),
                         shape_.norm_eps);
    return normed;
  }

  index_t expert_count() const {
    if constexpr (Mixture::present)
      return mixture_.experts(shape_);
    else
      return 0;
  }
  routing_load load_columns() const {
    if constexpr (Mixture::present)
      return mixture_.load(shape_);
    else
      return {0};
  }

  context_type* context_;
  transformer_shape shape_;
  Mixture mixture_;
  parameter_store<tree, Compute> parameters_;
  buffer<M, space> metrics_;  // loss sum, auxiliary sum, (L) routing_load
  std::vector<block_saved<Mixture, Compute>> saved_;
  buffer<M, space> rope_;
  index_t rope_positions_ = 0;
  routing_observer<M, space>* observer_ = nullptr;
};

// Llama family: grouped-query attention, SwiGLU, tied or untied head, optional QK-norm.
template <class Compute = compute<fp32, cpu>>
using dense_transformer = transformer<no_mixture, Compute>;

// The same with every feed-forward layer a mixture of experts.
template <Router R, Balancer B, ExpertLayout L, class Compute = compute<fp32, cpu>>
using moe_transformer = transformer<mixture<R, B, L>, Compute>;

}  // namespace graft
