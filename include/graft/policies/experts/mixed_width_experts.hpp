// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// mixed_width_experts: feed-forward layers of different hidden widths in one layer.

#include <charconv>
#include <cstdint>
#include <string>

#include <graft/backend/rows.hpp>
#include <graft/policies/experts/swiglu_experts.hpp>

namespace graft {

// "16,8,8". Errors: anything but positive numbers between commas, more than expert_widths::most.
inline std::string to_text(const expert_widths& widths) {
  std::string text;
  for (int i = 0; i < widths.count; ++i) text += (i > 0 ? "," : "") + std::to_string(widths.values[i]);
  return text;
}
inline expert_widths parse_expert_widths(const std::string& text) {
  expert_widths widths;
  const char *at = text.data(), *end = text.data() + text.size();
  while (true) {
    std::int32_t width = 0;
    const auto read = std::from_chars(at, end, width);
    GRAFT_CHECK(read.ec == std::errc() && width >= 1 && (read.ptr == end || *read.ptr == ','),
                "expert_widths: expected positive numbers with commas between, got \"", text, "\"");
    widths.add(width);
    if (read.ptr == end) return widths;
    at = read.ptr + 1;
  }
}

namespace detail {

// Which expert a row in use belongs to. Requires: row < offsets[experts].
GRAFT_HOST_DEVICE inline index_t expert_of_row(const std::int32_t* offsets, index_t experts, index_t row) {
  index_t low = 0, high = experts;  // offsets[low] <= row < offsets[high]
  while (high - low > 1) {
    const index_t middle = (low + high) / 2;
    if (offsets[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

// swiglu_row on the columns that a row's expert has.
template <class T, class Space>
struct mixed_swiglu_row {
  view<T, 2, Space> out;            // (R, largest F)
  view<const T, 2, Space> gate_up;  // (R, 2 largest F), of expert e the first 2 F_e columns
  view<const std::int32_t, 1, Space> offsets;
  expert_widths widths;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    if (row >= offsets[widths.count]) return;
    const index_t hidden = widths[expert_of_row(offsets.data, widths.count, row)];
    swiglu_row<T, Space>{out.columns(0, hidden), gate_up.columns(0, 2 * hidden), nullptr}(group, row);
  }
};

template <class T, class Space>
struct mixed_swiglu_backward_row {
  view<T, 2, Space> d_gate_up;
  view<const T, 2, Space> d_out;
  view<const T, 2, Space> gate_up;
  view<const std::int32_t, 1, Space> offsets;
  expert_widths widths;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    if (row >= offsets[widths.count]) return;
    const index_t hidden = widths[expert_of_row(offsets.data, widths.count, row)];
    swiglu_backward_row<T, Space>{d_gate_up.columns(0, 2 * hidden), d_out.columns(0, hidden),
                                  gate_up.columns(0, 2 * hidden), nullptr}(group, row);
  }
};

}  // namespace detail

// FFN_e(x) as in swiglu_experts with a hidden width F_e of its own: W1_e, W3_e (F_e, D), W2_e (D, F_e). The tensors of
// a checkpoint have these extents, and no parameter is padding. Activations are as wide as the widest expert.
// Requires: widths.count == E, at most expert_widths::most.
// Cost: one grouped product for each run of neighbours of one width; with equal widths that of swiglu_experts.
struct mixed_width_experts {
  static constexpr const char* name = "mixed_width";

  expert_widths widths{};

  template <class Leaf>
  using parameters = swiglu_experts::parameters<Leaf>;
  template <class Compute>
  using saved = swiglu_experts::saved<Compute>;

  constexpr parameters<parameter_spec> specs(index_t width, index_t, index_t experts) const {
    GRAFT_CHECK(widths.count == experts, "mixed_width_experts: expected a width for each of ", experts,
                " experts, got ", widths.count);
    GRAFT_CHECK(experts <= expert_widths::most, "mixed_width_experts: expected at most ", int{expert_widths::most},
                " experts, got ", experts);
    for (int e = 0; e < widths.count; ++e)
      GRAFT_CHECK(widths[e] >= 1, "mixed_width_experts: expected widths of at least 1, got ", widths[e], " for expert ",
                  e);
    parameters<parameter_spec> specs = swiglu_experts().specs(width, widths.largest(), experts);
    specs.w13 = specs.w13.stacked_rows(widths);
    specs.w2 = specs.w2.stacked_columns(widths);
    return specs;
  }

  template <class Compute>
  saved<Compute> forward(typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
                         view<const std::int32_t, 1, typename Compute::space> offsets,
                         view<const typename Compute::storage, 2, typename Compute::space> rows) const {
    using T = typename Compute::storage;
    using space = typename Compute::space;
    const index_t count = rows.extent(0), widest = widths.largest();
    saved<Compute> saved;
    saved.gate_up = context.template allocate<T>(count, 2 * widest);
    saved.hidden = context.template allocate<T>(count, widest);
    saved.results = context.template allocate<T>(count, rows.extent(1));
    for_each_run([&](const run& run) {
      grouped_gemm_nt(context, saved.gate_up.columns(0, 2 * run.width), rows, w13_of(weights.w13, run),
                      offsets_of(offsets, run), accumulate::no);
    });
    launch_rows(context, count, widest,
                detail::mixed_swiglu_row<T, space>{saved.hidden, saved.gate_up, offsets, widths});
    for_each_run([&](const run& run) {
      grouped_gemm_nt(context, saved.results, saved.hidden.columns(0, run.width), w2_of(weights.w2, run),
                      offsets_of(offsets, run), accumulate::no);
    });
    return saved;
  }

  template <class Compute>
  view<typename Compute::storage, 2, typename Compute::space> backward(
      typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
      const parameters<typename Compute::gradient>& gradients, const saved<Compute>& saved,
      view<const std::int32_t, 1, typename Compute::space> offsets,
      view<const typename Compute::storage, 2, typename Compute::space> rows) const {
    using T = typename Compute::storage;
    using space = typename Compute::space;
    const auto d_results = saved.results, d_hidden = saved.hidden, d_gate_up = saved.gate_up;
    for_each_run([&](const run& run) {
      const auto ends = offsets_of(offsets, run);
      const auto hidden = saved.hidden.columns(0, run.width);
      if (gradients.w2.present())
        grouped_gemm_tn(context, w2_of(gradients.w2, run), d_results, hidden, ends, accumulate::yes);
      grouped_gemm_nn(context, hidden, d_results, w2_of(weights.w2, run), ends, accumulate::no);
    });
    launch_rows(context, d_hidden.extent(0), d_hidden.extent(1),
                detail::mixed_swiglu_backward_row<T, space>{d_gate_up, d_hidden, saved.gate_up, offsets, widths});
    const auto d_rows = saved.results;  // free again
    for_each_run([&](const run& run) {
      const auto ends = offsets_of(offsets, run);
      const auto gate_up = d_gate_up.columns(0, 2 * run.width);
      if (gradients.w13.present())
        grouped_gemm_tn(context, w13_of(gradients.w13, run), gate_up, rows, ends, accumulate::yes);
      grouped_gemm_nn(context, d_rows, gate_up, w13_of(weights.w13, run), ends, accumulate::no);
    });
    return d_rows;
  }

 private:
  // Experts [first, last) of one width; `before` hidden units belong to the experts in front of them.
  struct run {
    index_t first, last, width, before;
  };
  template <class Visit>
  void for_each_run(const Visit& visit) const {
    run next{0, 0, 0, 0};
    while (next.first < widths.count) {
      next.width = widths[next.first];
      next.last = next.first + 1;
      while (next.last < widths.count && widths[next.last] == next.width) ++next.last;
      visit(next);
      next.before += (next.last - next.first) * next.width;
      next.first = next.last;
    }
  }
  template <class T, class Space>
  static view<T, 3, Space> w13_of(const parameter_view<T, Space>& all, const run& run) {
    return view<T, 3, Space>(all.data + 2 * run.before * all.columns, run.last - run.first, 2 * run.width, all.columns);
  }
  template <class T, class Space>
  static view<T, 3, Space> w2_of(const parameter_view<T, Space>& all, const run& run) {
    return view<T, 3, Space>(all.data + run.before * all.rows, run.last - run.first, all.rows, run.width);
  }
  template <class Space>
  static view<const std::int32_t, 1, Space> offsets_of(view<const std::int32_t, 1, Space> offsets, const run& run) {
    return offsets.rows(run.first, run.last + 1);
  }
};
static_assert(
    Experts<mixed_width_experts>,
    "graft::mixed_width_experts: it is not of the concept Experts. See what policies/experts/experts.hpp asks for.");

}  // namespace graft
