// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// AdamW over the arena of a model: one launch that clips, updates moments and master weights, writes the narrow copy
// and clears the gradients. Frozen tensors are outside the update altogether, decay and momentum included, so they stay
// bit-identical. A gradient whose norm is not finite updates nothing.

#include <cmath>
#include <cstdint>
#include <vector>

#include <graft/backend/arena.hpp>
#include <graft/backend/backend.hpp>
#include <graft/backend/buffer.hpp>
#include <graft/backend/rows.hpp>
#include <graft/core/math.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/core/step_value.hpp>

namespace graft {

struct adamw_options {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // decoupled; only on parameters whose declaration says decay
  double clip = 1.0;          // largest norm of the gradient; 0: no clipping
};

namespace detail {

// A run of the arena that is updated in the same way. Runs are sorted and do not overlap; what lies between is frozen.
struct update_run {
  index_t begin, end;
  bool decay;
};

inline constexpr index_t update_block = 2048;

// The first run that ends after `element`.
GRAFT_HOST_DEVICE inline index_t find_run(const update_run* runs, index_t count, index_t element) {
  index_t low = 0, high = count;
  while (low < high) {
    const index_t middle = (low + high) / 2;
    if (runs[middle].end > element)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

// Calls visit(begin, end, run) for the trained pieces of one block of the arena.
template <class Visit>
GRAFT_HOST_DEVICE void for_each_trained(const update_run* runs, index_t count, index_t block, Visit visit) {
  const index_t first = block * update_block, last = first + update_block;
  for (index_t run = find_run(runs, count, first); run < count && runs[run].begin < last; ++run) {
    const index_t begin = runs[run].begin > first ? runs[run].begin : first;
    const index_t end = runs[run].end < last ? runs[run].end : last;
    visit(begin, end, runs[run]);
  }
}

template <class M, class Space>
struct gradient_square_row {
  view<const M, 1, Space> gradients;
  view<M, 1, Space> partial;
  view<const update_run, 1, Space> runs;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t block) const {
    M total = 0;
    for_each_trained(runs.data, runs.extent(0), block, [&](index_t begin, index_t end, const update_run&) {
      const M* g = gradients.data + begin;
      total += group.sum(end - begin, [&](index_t i) { return g[i] * g[i]; });
    });
    group.single([&] { partial[block] = total; });
  }
};

// What one update is made with, where its kernels find it.
template <class M>
struct update_numbers {
  M norm;                      // of the gradient, before clipping
  M clip_factor;               // min(1, clip / norm)
  M rate;                      // the learning rate
  M correction1, correction2;  // 1 / (1 - b^t)

  GRAFT_HOST_DEVICE bool finite() const { return norm - norm == M(0); }
};

template <class M, class Space>
struct update_numbers_row {
  view<update_numbers<M>, 1, Space> numbers;
  view<const M, 1, Space> partial;
  M clip;
  double beta1, beta2;
  step_value<double> rate;
  step_value<index_t> step;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t) const {
    const M square = group.sum(partial.extent(0), [&](index_t i) { return partial[i]; });
    group.single([&] {
      const M norm = math::sqrt(square);
      const double t = static_cast<double>(index_t{step} + 1);
      numbers[0] = {norm, clip > 0 && norm > clip ? clip / norm : M(1), static_cast<M>(double{rate}),
                    static_cast<M>(1.0 / (1.0 - ::pow(beta1, t))), static_cast<M>(1.0 / (1.0 - ::pow(beta2, t)))};
    });
  }
};

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay p)
template <class T, class M, class Space>
struct adamw_row {
  view<M, 1, Space> master, gradients, first, second;
  view<T, 1, Space> narrow;  // absent when the precision has none
  view<const update_run, 1, Space> runs;
  view<const update_numbers<M>, 1, Space> numbers;
  M beta1, beta2, rest1, rest2, eps, decay;  // rest: 1 - beta, rounded once

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t block) const {
    const update_numbers<M> now = numbers[0];
    for_each_trained(runs.data, runs.extent(0), block, [&](index_t begin, index_t end, const update_run& run) {
      const M shrink = run.decay ? now.rate * decay : M(0);
      M* p = master.data + begin;
      M* g = gradients.data + begin;
      M* m = first.data + begin;
      M* v = second.data + begin;
      const auto update = [&](index_t i) {
        const M gradient = g[i] * now.clip_factor;
        const M mean = beta1 * m[i] + rest1 * gradient;
        const M square = beta2 * v[i] + rest2 * gradient * gradient;
        m[i] = mean;
        v[i] = square;
        const M value =
            p[i] - (now.rate * (mean * now.correction1) / (math::sqrt(square * now.correction2) + eps) + shrink * p[i]);
        p[i] = value;
        g[i] = 0;
        return value;
      };
      if (!now.finite()) {
        group.for_each(end - begin, [&](index_t i) { g[i] = 0; });
      } else if (narrow.data != nullptr) {
        T* copy = narrow.data + begin;
        group.for_each(end - begin, [&](index_t i) { copy[i] = T(update(i)); });
      } else {
        group.for_each(end - begin, [&](index_t i) { update(i); });
      }
    });
  }
};

// Sets a block of the gradients to zero, whoever they belong to.
template <class M, class Space>
struct clear_gradient_row {
  view<M, 1, Space> gradients;
  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t block) const {
    const index_t begin = block * update_block;
    const index_t end = begin + update_block < gradients.extent(0) ? begin + update_block : gradients.extent(0);
    group.for_each(end - begin, [&](index_t i) { gradients.data[begin + i] = 0; });
  }
};

}  // namespace detail

// State and update rule. Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2017, arXiv
// 1711.05101.
template <class Compute>
class adamw {
 public:
  using context_type = typename Compute::context_type;
  using space = typename Compute::space;
  using T = typename Compute::storage;
  using M = typename Compute::master;

  // trainable: one flag for each tensor of the layout.
  adamw(context_type& context, const parameter_layout& layout, const std::vector<bool>& trainable,
        const adamw_options& options)
      : options_(options), size_(layout.size), first_(layout.size), second_(layout.size), numbers_(1) {
    GRAFT_CHECK(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1 && options.eps > 0 &&
                    options.weight_decay >= 0 && options.clip >= 0,
                "adamw: expected betas in [0, 1), eps above 0, weight decay and clip of at least 0, got beta1=",
                options.beta1, ", beta2=", options.beta2, ", eps=", options.eps,
                ", weight_decay=", options.weight_decay, ", clip=", options.clip);
    GRAFT_CHECK(trainable.size() == layout.tensors.size(), "adamw: expected a flag for each of ", layout.tensors.size(),
                " tensors, got ", trainable.size());
    std::vector<detail::update_run> runs;
    bool partly_frozen = false;
    for (std::size_t i = 0; i < trainable.size(); ++i) {
      const tensor_entry& entry = layout.tensors[i];
      partly_frozen = partly_frozen || !trainable[i];
      if (!trainable[i]) continue;
      if (!runs.empty() && runs.back().end == entry.offset && runs.back().decay == entry.decay)
        runs.back().end += entry.size();
      else
        runs.push_back({entry.offset, entry.offset + entry.size(), entry.decay});
    }
    GRAFT_CHECK(!runs.empty(), "adamw: nothing to train, every tensor is frozen");
    run_count_ = static_cast<index_t>(runs.size());
    runs_ = buffer<detail::update_run, space>(run_count_);
    copy_from_host(context, runs_.view(), runs.data());
    partly_frozen_ = partly_frozen;
  }

  // One update with gradients that are complete. step counts from 0. Clears the gradients. Where their norm is not
  // finite that is all: weights and moments stay as they are.
  // Cost: two passes; the second reads p, m, v, g and writes p, m, v, g and the narrow copy. No host synchronisation.
  void update(context_type& context, view<M, 1, space> master, view<T, 1, space> narrow, view<M, 1, space> gradients,
              step_value<double> rate, step_value<index_t> step) {
    const index_t blocks = (size_ + detail::update_block - 1) / detail::update_block;
    workspace_scope scope(context);
    auto partial = context.template allocate<M>(blocks);
    const view<const detail::update_run, 1, space> runs(runs_.data(), run_count_);
    launch_rows(context, blocks, detail::update_block, detail::gradient_square_row<M, space>{gradients, partial, runs});
    launch_rows(context, 1, blocks,
                detail::update_numbers_row<M, space>{numbers_.view(), partial, static_cast<M>(options_.clip),
                                                     options_.beta1, options_.beta2, rate, step});
    launch_rows(
        context, blocks, detail::update_block,
        detail::adamw_row<T, M, space>{master, gradients, first_.view(), second_.view(), narrow, runs, numbers_.view(),
                                       static_cast<M>(options_.beta1), static_cast<M>(options_.beta2),
                                       static_cast<M>(1.0 - options_.beta1), static_cast<M>(1.0 - options_.beta2),
                                       static_cast<M>(options_.eps), static_cast<M>(options_.weight_decay)});
    // Experts frozen inside a trained stack collect gradients that nobody uses.
    if (partly_frozen_)
      launch_rows(context, blocks, detail::update_block, detail::clear_gradient_row<M, space>{gradients});
  }

  // The norm of the gradient of the last update, before clipping. Cost: one synchronisation.
  double gradient_norm(context_type& context) const {
    detail::update_numbers<M> numbers;
    copy_to_host(context, &numbers, numbers_.view());
    return static_cast<double>(numbers.norm);
  }
  // Where it stands until the host asks.
  view<const M, 1, space> gradient_norm() const { return view<const M, 1, space>(&numbers_.data()->norm, 1); }

  view<M, 1, space> first_moment() const { return first_.view(); }
  view<M, 1, space> second_moment() const { return second_.view(); }
  const adamw_options& options() const { return options_; }

 private:
  adamw_options options_;
  index_t size_;
  buffer<M, space> first_, second_;
  buffer<detail::update_numbers<M>, space> numbers_;
  buffer<detail::update_run, space> runs_;
  index_t run_count_ = 0;
  bool partly_frozen_ = false;
};

}  // namespace graft
