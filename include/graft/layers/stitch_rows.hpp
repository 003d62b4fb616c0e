// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The row algorithms of a stitch: the gates of one merge and its weighted sum in one pass, and their gradients in one.
// Gates are computed in the master type.

#include <cstdint>

#include <graft/backend/rows.hpp>
#include <graft/core/dtype.hpp>
#include <graft/core/math.hpp>
#include <graft/core/philox.hpp>
#include <graft/core/view.hpp>
#include <graft/policies/router/routing_pass.hpp>

namespace graft {

// Members that one merge may read; functors hold an array of them.
inline constexpr int most_stitched_members = 16;

namespace detail {

// Channels that one block of random numbers serves.
inline constexpr int dropout_channels = 8;
// Channels that go together: vectors on the host.
#if defined(__CUDA_ARCH__)
inline constexpr int stitch_lanes = dropout_channels;
#else
inline constexpr int stitch_lanes = 2 * dropout_channels;
#endif

// f(l) for the first `count` lanes; all of them in a loop of fixed length, which becomes vector instructions.
template <class F>
GRAFT_HOST_DEVICE inline void for_lanes(int count, const F& f) {
  if (count == stitch_lanes) {
    for (int l = 0; l < stitch_lanes; ++l) f(l);
  } else {
    for (int l = 0; l < count; ++l) f(l);
  }
}

// Dropout of gate logits: a logit is 0 with probability q, else multiplied by 1 / (1 - q), q = threshold / 65536. Which
// ones is a function of (seed, step, stitch, token, slot, channel), so that the backward pass finds it again.
struct gate_dropout {
  random_source random{0, random_stream::dropout};
  step_value<index_t> step = 0;
  index_t stitch = 0;
  index_t first_token = 0;
  std::uint32_t threshold = 0;  // 0: no dropout

  static gate_dropout of(const pass_position& at, index_t stitch, double rate) {
    gate_dropout dropout;
    dropout.random.seed = at.seed;
    dropout.step = at.step;
    dropout.stitch = stitch;
    dropout.first_token = at.first_token;
    dropout.threshold = at.training ? static_cast<std::uint32_t>(rate * 65536.0 + 0.5) : 0;
    return dropout;
  }
  template <class M>
  GRAFT_HOST_DEVICE M scale() const {
    return M(65536) / static_cast<M>(65536 - threshold);
  }
  // Bit l: whether the logit of channel stitch_lanes * chunk + l stays.
  GRAFT_HOST_DEVICE unsigned kept(index_t token, unsigned slot, index_t chunk) const {
    if (threshold == 0) return (1u << stitch_lanes) - 1;
    const auto step_and_stitch = static_cast<std::uint64_t>(step) << 12 | static_cast<std::uint64_t>(stitch);
    unsigned bits = 0;
    for (int part = 0; part < stitch_lanes; part += dropout_channels) {
      const index_t block = (chunk * stitch_lanes + part) / dropout_channels;
      const philox_block words =
          random.words(step_and_stitch, static_cast<std::uint64_t>(first_token + token) << 24 |
                                            static_cast<std::uint64_t>(slot) << 16 | static_cast<std::uint64_t>(block));
      for (int l = 0; l < dropout_channels; ++l)
        if (((words.word[l / 2] >> (l % 2 * 16)) & 0xffffu) >= threshold) bits |= 1u << (part + l);
    }
    return bits;
  }
};

// What a merge reads: m projected states p_j (T, D) in contiguous rows, and where each one's logits begin in the rows
// of all logits. own_column -1: the own logit is 0, and the softmax over it and one other is a sigmoid.
template <class T>
struct merge_sources {
  int count = 0;
  int own_column = -1;
  unsigned char own_slot = 0;
  unsigned char slots[most_stitched_members] = {};  // of the dropout
  int columns[most_stitched_members] = {};
  const T* projected[most_stitched_members] = {};
};

// The gates of one merge, for a chunk of channels of one token, with running maxima: m exponentials for m sources.
template <class T, class M, class Space>
struct merge_gates {
  view<const M, 2, Space> logits;  // (T, columns)
  view<const T, 2, Space> own;     // (T, D)
  merge_sources<T> sources;
  gate_dropout dropout;

  GRAFT_HOST_DEVICE index_t width() const { return own.extent(1); }
  GRAFT_HOST_DEVICE index_t chunks() const { return (width() + stitch_lanes - 1) / stitch_lanes; }
  GRAFT_HOST_DEVICE int lanes(index_t chunk) const {
    const index_t left = width() - chunk * stitch_lanes;
    return left < stitch_lanes ? static_cast<int>(left) : stitch_lanes;
  }
  GRAFT_HOST_DEVICE unsigned kept(index_t row, int slot, index_t chunk) const {
    if (slot < 0) return sources.own_column < 0 ? 0u : dropout.kept(row, sources.own_slot, chunk);
    return dropout.kept(row, sources.slots[slot], chunk);
  }
  // The logits of a slot (-1: the own one) after dropout.
  GRAFT_HOST_DEVICE void read_logits(M* z, index_t row, int slot, index_t chunk, unsigned bits) const {
    const int column = slot < 0 ? sources.own_column : sources.columns[slot];
    const int count = lanes(chunk);
    for (int l = 0; l < stitch_lanes; ++l) z[l] = 0;
    if (column < 0) return;
    const M* source = logits.row(row) + column + chunk * stitch_lanes;
    for_lanes(count, [&](int l) { z[l] = source[l]; });
    if (dropout.threshold == 0) return;
    const M scale = dropout.scale<M>();
    for (int l = 0; l < stitch_lanes; ++l) z[l] = (bits >> l & 1u) != 0 ? z[l] * scale : M(0);
  }

  // For a chunk of one token, over all slots; the own state counts as p = h.
  struct sums {
    M top[stitch_lanes];                              // max of the logits
    M sum[stitch_lanes];                              // sum_j e^(z_j - top)
    M mixed[stitch_lanes];                            // sum_j e^(z_j - top) (p_j - h)
    unsigned short keeps[most_stitched_members + 1];  // which logits stayed, by slot, the own one last
  };
  GRAFT_HOST_DEVICE sums mix(index_t row, index_t chunk) const {
    const int count = lanes(chunk);
    const T* state = own.row(row) + chunk * stitch_lanes;
    sums result;
    // In arrays of its own, so that the compiler knows that no input lies in them.
    M top[stitch_lanes], sum[stitch_lanes], mixed[stitch_lanes], z[stitch_lanes], delta[stitch_lanes] = {};
    result.keeps[sources.count] = static_cast<unsigned short>(kept(row, -1, chunk));
    read_logits(top, row, -1, chunk, result.keeps[sources.count]);
    for (int l = 0; l < stitch_lanes; ++l) sum[l] = 1, mixed[l] = 0;
    for (int slot = 0; slot < sources.count; ++slot) {
      result.keeps[slot] = static_cast<unsigned short>(kept(row, slot, chunk));
      read_logits(z, row, slot, chunk, result.keeps[slot]);
      const T* projected = sources.projected[slot] + row * width() + chunk * stitch_lanes;
      for_lanes(count, [&](int l) { delta[l] = static_cast<M>(projected[l]) - static_cast<M>(state[l]); });
      // One of the two exponentials, of the new logit and of the old maximum, is 1.
      for (int l = 0; l < stitch_lanes; ++l) {
        const M apart = z[l] - top[l];
        const M small = math::exp(apart > 0 ? -apart : apart);
        const M before = apart > 0 ? small : M(1), weight = apart > 0 ? M(1) : small;
        sum[l] = sum[l] * before + weight;
        mixed[l] = mixed[l] * before + weight * delta[l];
        top[l] = apart > 0 ? z[l] : top[l];
      }
    }
    for (int l = 0; l < stitch_lanes; ++l) result.top[l] = top[l], result.sum[l] = sum[l], result.mixed[l] = mixed[l];
    return result;
  }
};

// out = h + sum_j g_j (p_j - h), which is sum over all slots of g_j p_j. Models that agree give the same bits back.
template <class T, class M, class Space>
struct merge_row {
  view<T, 2, Space> out;  // (T, D); may be own
  merge_gates<T, M, Space> gates;
  T* carried[most_stitched_members] = {};  // where a projected state goes on, (T, D) rows; null: nowhere

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    group.for_each(gates.chunks(), [&](index_t chunk) {
      const auto sums = gates.mix(row, chunk);
      const int count = gates.lanes(chunk);
      const index_t first = chunk * stitch_lanes;
      const T* state = gates.own.row(row) + first;
      T* target = out.row(row) + first;
      M merged[stitch_lanes] = {};
      for_lanes(count, [&](int l) { merged[l] = static_cast<M>(state[l]) + sums.mixed[l] / sums.sum[l]; });
      for_lanes(count, [&](int l) { target[l] = T(merged[l]); });
      for (int slot = 0; slot < gates.sources.count; ++slot) {
        if (carried[slot] == nullptr) continue;
        const index_t at = row * gates.width() + first;
        for_lanes(count, [&](int l) { carried[slot][at + l] = gates.sources.projected[slot][at + l]; });
      }
    });
  }
};

// With o = out - h = sum_j g_j (p_j - h), upstream d:
//   dz_j = g_j d (p_j - h - o),   dz_own = -g_own d o,   dp_j = g_j d (+ what is there),   dh = g_own d
// dz is multiplied by the dropout's factor. The part of dh that comes through the logits is a product's.
template <class T, class M, class Space>
struct merge_backward_row {
  view<T, 2, Space> d_state;   // (T, D) in: d; out: g_own d
  view<T, 2, Space> d_logits;  // (T, columns), the columns of this merge
  merge_gates<T, M, Space> gates;
  T* d_projected[most_stitched_members] = {};  // (T, D) rows
  bool add[most_stitched_members] = {};        // to what is there

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    group.for_each(gates.chunks(), [&](index_t chunk) {
      const auto sums = gates.mix(row, chunk);
      const auto& sources = gates.sources;
      const int count = gates.lanes(chunk);
      const index_t first = chunk * stitch_lanes, at = row * gates.width() + first;
      const M scale = gates.dropout.template scale<M>();
      const T* state = gates.own.row(row) + first;
      T* target = d_state.row(row) + first;
      M share[stitch_lanes] = {}, moved[stitch_lanes], h[stitch_lanes] = {};  // d / sum, o, h
      M z[stitch_lanes], d_z[stitch_lanes] = {}, d_p[stitch_lanes] = {};
      for_lanes(count, [&](int l) { share[l] = static_cast<M>(target[l]); });
      for_lanes(count, [&](int l) { h[l] = static_cast<M>(state[l]); });
      for (int l = 0; l < stitch_lanes; ++l) {
        const M inverse = M(1) / sums.sum[l];
        share[l] *= inverse;
        moved[l] = sums.mixed[l] * inverse;
      }
      for (int slot = 0; slot < sources.count; ++slot) {
        const unsigned bits = sums.keeps[slot];
        gates.read_logits(z, row, slot, chunk, bits);
        const T* projected = sources.projected[slot] + at;
        T* d_logit = d_logits.row(row) + sources.columns[slot] + first;
        T* d_source = d_projected[slot] + at;
        for_lanes(count, [&](int l) { d_z[l] = static_cast<M>(projected[l]); });
        for (int l = 0; l < stitch_lanes; ++l) d_p[l] = 0;
        if (add[slot]) for_lanes(count, [&](int l) { d_p[l] = static_cast<M>(d_source[l]); });
        for (int l = 0; l < stitch_lanes; ++l) {
          const M through = math::exp(z[l] - sums.top[l]) * share[l];
          const M d_logit_kept = through * (d_z[l] - h[l] - moved[l]) * scale;
          d_z[l] = (bits >> l & 1u) != 0 ? d_logit_kept : M(0);
          d_p[l] += through;
        }
        for_lanes(count, [&](int l) { d_logit[l] = T(d_z[l]); });
        for_lanes(count, [&](int l) { d_source[l] = T(d_p[l]); });
      }
      const unsigned bits = sums.keeps[sources.count];
      gates.read_logits(z, row, -1, chunk, bits);
      for (int l = 0; l < stitch_lanes; ++l) {
        d_p[l] = math::exp(z[l] - sums.top[l]) * share[l];
        d_z[l] = (bits >> l & 1u) != 0 ? -d_p[l] * moved[l] * scale : M(0);
      }
      if (sources.own_column >= 0) {
        T* d_logit = d_logits.row(row) + sources.own_column + first;
        for_lanes(count, [&](int l) { d_logit[l] = T(d_z[l]); });
      }
      for_lanes(count, [&](int l) { target[l] = T(d_p[l]); });
    });
  }
};

// means[j] = mean over the channels of g_j for one token; the own one is last.
template <class T, class M, class Space>
struct merge_gate_mean_row {
  view<M, 2, Space> means;  // (T, N): a column for each member
  merge_gates<T, M, Space> gates;
  int members[most_stitched_members + 1] = {};  // the columns of the sources, then of the own state

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    const int count = gates.sources.count;
    const M width = static_cast<M>(gates.width());
    for (int slot = 0; slot <= count; ++slot) {
      const M total = group.sum(gates.chunks(), [&](index_t chunk) {
        M z[stitch_lanes], part = 0;
        const auto sums = gates.mix(row, chunk);
        gates.read_logits(z, row, slot == count ? -1 : slot, chunk, sums.keeps[slot]);
        for (int l = 0; l < gates.lanes(chunk); ++l) part += math::exp(z[l] - sums.top[l]) / sums.sum[l];
        return part;
      });
      group.single([&] { means(row, members[slot]) = total / width; });
    }
  }
};

// out = x + delta. An absent delta is none; out may be x.
template <class T, class Space>
struct add_delta_row {
  view<T, 2, Space> out;
  view<const T, 2, Space> x, delta;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    using M = accumulator_t<T>;
    T* target = out.row(row);
    const T* source = x.row(row);
    if (delta.data == nullptr) {
      group.for_each(out.extent(1), [&](index_t i) { target[i] = source[i]; });
      return;
    }
    const T* added = delta.row(row);
    group.for_each(out.extent(1),
                   [&](index_t i) { target[i] = T(static_cast<M>(source[i]) + static_cast<M>(added[i])); });
  }
};

}  // namespace detail
}  // namespace graft
