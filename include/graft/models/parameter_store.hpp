// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The memory of a model's parameters: master weights in one arena, gradients in a second, and the narrow copy that
// products read when the precision has one.

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include <graft/backend/buffer.hpp>
#include <graft/backend/recorded_step.hpp>
#include <graft/core/initialization.hpp>
#include <graft/layers/compute.hpp>
#include <graft/ops/cast.hpp>

namespace graft {

// Which tensors are trained. The default trains all.
using trainable_rule = std::function<bool(const tensor_entry&)>;

template <template <class> class Tree, class Compute>
class parameter_store {
 public:
  using context_type = typename Compute::context_type;
  using space = typename Compute::space;
  using T = typename Compute::storage;
  using M = typename Compute::master;

  explicit parameter_store(Tree<parameter_spec> specs)
      : specs_(std::move(specs)), layout_(make_layout(specs_)), master_(layout_.size) {
    if constexpr (has_narrow_copy<typename Compute::precision>) {
      narrow_ = buffer<T, space>(layout_.size);
      weights_ = bind_parameters<Tree<typename Compute::weight>>(specs_, narrow_.view());
    } else {
      weights_ = bind_parameters<Tree<typename Compute::weight>>(specs_, master_.view());
    }
    master_views_ = bind_parameters<Tree<typename Compute::gradient>>(specs_, master_.view());
  }

  const Tree<parameter_spec>& specs() const { return specs_; }
  const parameter_layout& layout() const { return layout_; }
  view<M, 1, space> master() const { return master_.view(); }
  view<T, 1, space> narrow() const { return narrow_.view(); }  // empty where the precision has no narrow copy
  view<M, 1, space> gradients() const { return gradients_.view(); }
  const Tree<typename Compute::weight>& weights() const { return weights_; }
  const Tree<typename Compute::gradient>& master_views() const { return master_views_; }
  const Tree<typename Compute::gradient>& gradient_views() const { return gradient_views_; }

  // Makes the narrow copy from the master weights. Needed after the master weights were written by anything but the
  // optimizer.
  void refresh(context_type& context) {
    if constexpr (has_narrow_copy<typename Compute::precision>)
      cast<context_type, T>(context, narrow_.view(), master_.view());
  }

  // Allocates the gradients (zero) and decides which tensors have one. A parameter none of whose tensors is trained
  // gets none, and layers compute nothing for it.
  void set_trainable(const trainable_rule& rule) {
    gradients_ = {};  // gives the old memory back before the new is asked for
    gradients_ = buffer<M, space>(layout_.size);
    trainable_.assign(layout_.tensors.size(), true);
    for (std::size_t i = 0; i < layout_.tensors.size(); ++i) {
      const tensor_entry& tensor = layout_.tensors[i];
      trainable_[i] = tensor.optimized && (!rule || rule(tensor));
    }
    gradient_views_ = bind_parameters<Tree<typename Compute::gradient>>(specs_, gradients_.view());
    std::size_t tensor = 0;
    zip_leaves(specs_, gradient_views_, [&](const parameter_spec& spec, typename Compute::gradient& leaf) {
      if (!spec.present()) return;
      const std::size_t count =
          static_cast<std::size_t>(spec.part_count) * static_cast<std::size_t>(spec.experts > 0 ? spec.experts : 1);
      bool any = false;
      for (std::size_t i = 0; i < count; ++i) any = any || trainable_[tensor + i];
      tensor += count;
      if (!any) leaf = {};
    });
  }
  const std::vector<bool>& trainable() const { return trainable_; }
  index_t trained_parameter_count() const {
    index_t count = 0;
    for (std::size_t i = 0; i < trainable_.size(); ++i) count += trainable_[i] ? layout_.tensors[i].size() : 0;
    return count;
  }

  // Where the work on these parameters finds them.
  recording_key recording() const {
    recording_key key;
    key.append({master_.data(), narrow_.data(), gradients_.data()});
    return key;
  }

  // Draws every tensor from its initialiser (core/initialization.hpp).
  void initialize(context_type& context, std::uint64_t seed) {
    std::vector<M> values(static_cast<std::size_t>(layout_.size), M(0));
    for (const tensor_entry& entry : layout_.tensors) draw_initial(entry, seed, values.data() + entry.offset);
    copy_from_host(context, master_.view(), values.data());
    refresh(context);
  }

 private:
  Tree<parameter_spec> specs_;
  parameter_layout layout_;
  buffer<M, space> master_;
  buffer<T, space> narrow_;
  buffer<M, space> gradients_;
  Tree<typename Compute::weight> weights_;
  Tree<typename Compute::gradient> master_views_;
  Tree<typename Compute::gradient> gradient_views_;
  std::vector<bool> trainable_;
};

}  // namespace graft
