// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// lora_experts: experts whose matrices are changed by products of low rank.

#include <cstdint>
#include <tuple>

#include <graft/backend/rows.hpp>
#include <graft/ops/operands.hpp>
#include <graft/policies/experts/swiglu_experts.hpp>
#include <graft/policies/options.hpp>

namespace graft {

namespace detail {

// x *= factor in the rows in use.
template <class T, class Space>
struct scale_rows_row {
  using Master = accumulator_t<T>;
  view<T, 2, Space> x;
  const std::int32_t* row_count;
  Master factor;

  template <class Group>
  GRAFT_HOST_DEVICE void operator()(Group& group, index_t row) const {
    if (row >= *row_count) return;
    T* values = x.row(row);
    group.for_each(x.extent(1), [&](index_t i) { values[i] = T(factor * static_cast<Master>(values[i])); });
  }
};

// Rows [begin, end) of each of E matrices.
template <class T, class Space>
view<T, 3, Space> stacked_rows(view<T, 3, Space> matrices, index_t begin, index_t end) {
  matrices.data += begin * matrices.strides[1];
  matrices.extents[1] = end - begin;
  return matrices;
}

}  // namespace detail

// FFN_e of swiglu_experts with W + s B A in the place of each W (w1, w2, w3), s = alpha / rank, A (rank, columns of W)
// normal, B (rows of W, rank) zero: at the start the layer computes what it computes without. A and B have the role
// adapter, so that they train while W is frozen. W itself is never formed anew: x (W + s B A)^T = x W^T + s (x A^T)
// B^T. In a checkpoint w1_lora_a, w1_lora_b and so on beside w1. Requires: rank >= 1. Cost: of an expert 3 rank (D + F)
// parameters. Source: Hu et al., "LoRA", 2021, arXiv 2106.09685. rank 16 and alpha 32 on experts: MetaMoE, 2026, arXiv
// 2605.14289.
struct lora_experts {
  static constexpr const char* name = "lora";
  static constexpr auto options() {
    return std::tuple(option("rank", &lora_experts::rank), option("alpha", &lora_experts::alpha),
                      option("stddev", &lora_experts::stddev));
  }

  index_t rank = 16;
  double alpha = 32;
  double stddev = 0.02;  // of A at the start

  template <class Leaf>
  struct parameters {
    BOOST_HANA_DEFINE_STRUCT(parameters, (Leaf, w13), (Leaf, w2), (Leaf, a13), (Leaf, b13), (Leaf, w2_lora_a),
                             (Leaf, w2_lora_b));
  };

  constexpr parameters<parameter_spec> specs(index_t width, index_t hidden, index_t experts) const {
    GRAFT_CHECK(rank >= 1, "lora_experts: expected a rank of at least 1, got ", rank);
    const auto base = swiglu_experts().specs(width, hidden, experts);
    const initializer a = initializer::normal(stddev), b = initializer::zeros();
    parameters<parameter_spec> specs;
    specs.w13 = base.w13;
    specs.w2 = base.w2;
    specs.a13 = parameter_spec::fused(role::adapter, {{"w1_lora_a", rank}, {"w3_lora_a", rank}}, width, a);
    specs.b13 = parameter_spec::fused(role::adapter, {{"w1_lora_b", hidden}, {"w3_lora_b", hidden}}, rank, b);
    specs.w2_lora_a = parameter_spec::matrix(role::adapter, rank, hidden, a);
    specs.w2_lora_b = parameter_spec::matrix(role::adapter, width, rank, b);
    for (parameter_spec* each : {&specs.a13, &specs.b13, &specs.w2_lora_a, &specs.w2_lora_b})
      *each = each->stacked(experts);
    return specs;
  }

  template <class Compute>
  struct saved {
    using matrix = view<typename Compute::storage, 2, typename Compute::space>;
    matrix low13;    // (R, 2 rank) s x A^T of w1 and w3
    matrix gate_up;  // (R, 2F)
    matrix hidden;   // (R, F)
    matrix low2;     // (R, rank)
    matrix results;  // (R, D)
  };

  template <class Compute>
  saved<Compute> forward(typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
                         view<const std::int32_t, 1, typename Compute::space> offsets,
                         view<const typename Compute::storage, 2, typename Compute::space> rows) const {
    using T = typename Compute::storage;
    const index_t count = rows.extent(0), hidden = weights.w2.columns;
    saved<Compute> saved;
    saved.low13 = context.template allocate<T>(count, 2 * rank);
    saved.gate_up = context.template allocate<T>(count, 2 * hidden);
    saved.hidden = context.template allocate<T>(count, hidden);
    saved.low2 = context.template allocate<T>(count, rank);
    saved.results = context.template allocate<T>(count, rows.extent(1));

    grouped_gemm_nt(context, saved.low13, rows, weights.a13.stacked(), offsets, accumulate::no);
    scale(context, saved.low13, offsets);
    grouped_gemm_nt(context, saved.gate_up, rows, weights.w13.stacked(), offsets, accumulate::no);
    for (index_t part = 0; part < 2; ++part)
      grouped_gemm_nt(context, columns_of(saved.gate_up, part), columns_of(saved.low13, part),
                      rows_of(weights.b13.stacked(), part), offsets, accumulate::yes);
    swiglu_forward(context, saved.hidden, saved.gate_up, offsets.data + offsets.extent(0) - 1);

    grouped_gemm_nt(context, saved.low2, saved.hidden, weights.w2_lora_a.stacked(), offsets, accumulate::no);
    scale(context, saved.low2, offsets);
    grouped_gemm_nt(context, saved.results, saved.hidden, weights.w2.stacked(), offsets, accumulate::no);
    grouped_gemm_nt(context, saved.results, saved.low2, weights.w2_lora_b.stacked(), offsets, accumulate::yes);
    return saved;
  }

  // Of y = x W^T + l B^T, l = s x A^T:  d_B += d_y^T l,  d_l = s d_y B,  d_A += d_l^T x,  d_x = d_y W + d_l A.
  template <class Compute>
  view<typename Compute::storage, 2, typename Compute::space> backward(
      typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
      const parameters<typename Compute::gradient>& gradients, const saved<Compute>& saved,
      view<const std::int32_t, 1, typename Compute::space> offsets,
      view<const typename Compute::storage, 2, typename Compute::space> rows) const {
    const auto d_results = saved.results;
    if (gradients.w2.present())
      grouped_gemm_tn(context, gradients.w2.stacked(), d_results, saved.hidden, offsets, accumulate::yes);
    if (gradients.w2_lora_b.present())
      grouped_gemm_tn(context, gradients.w2_lora_b.stacked(), d_results, saved.low2, offsets, accumulate::yes);
    const auto d_low2 = saved.low2;
    grouped_gemm_nn(context, d_low2, d_results, weights.w2_lora_b.stacked(), offsets, accumulate::no);
    scale(context, d_low2, offsets);
    if (gradients.w2_lora_a.present())
      grouped_gemm_tn(context, gradients.w2_lora_a.stacked(), d_low2, saved.hidden, offsets, accumulate::yes);
    const auto d_hidden = saved.hidden;
    grouped_gemm_nn(context, d_hidden, d_results, weights.w2.stacked(), offsets, accumulate::no);
    grouped_gemm_nn(context, d_hidden, d_low2, weights.w2_lora_a.stacked(), offsets, accumulate::yes);

    const auto d_gate_up = saved.gate_up;
    swiglu_backward(context, d_gate_up, d_hidden, saved.gate_up, offsets.data + offsets.extent(0) - 1);
    if (gradients.w13.present())
      grouped_gemm_tn(context, gradients.w13.stacked(), d_gate_up, rows, offsets, accumulate::yes);
    const auto d_low13 = saved.low13;
    for (index_t part = 0; part < 2; ++part) {
      if (gradients.b13.present())
        grouped_gemm_tn(context, rows_of(gradients.b13.stacked(), part), columns_of(d_gate_up, part),
                        columns_of(saved.low13, part), offsets, accumulate::yes);
      grouped_gemm_nn(context, columns_of(d_low13, part), columns_of(d_gate_up, part),
                      rows_of(weights.b13.stacked(), part), offsets, accumulate::no);
    }
    scale(context, d_low13, offsets);
    if (gradients.a13.present())
      grouped_gemm_tn(context, gradients.a13.stacked(), d_low13, rows, offsets, accumulate::yes);
    const auto d_rows = saved.results;  // free again
    grouped_gemm_nn(context, d_rows, d_gate_up, weights.w13.stacked(), offsets, accumulate::no);
    grouped_gemm_nn(context, d_rows, d_low13, weights.a13.stacked(), offsets, accumulate::yes);
    return d_rows;
  }

 private:
  // Halves of what w1 and w3 share.
  template <class View>
  static View columns_of(const View& both, index_t part) {
    const index_t half = both.extent(1) / 2;
    return both.columns(part * half, (part + 1) * half);
  }
  template <class View>
  static View rows_of(const View& both, index_t part) {
    const index_t half = both.extent(1) / 2;
    return detail::stacked_rows(both, part * half, (part + 1) * half);
  }
  template <class Context, class T, class Space>
  void scale(Context& context, const view<T, 2, Space>& x, const view<const std::int32_t, 1, Space>& offsets) const {
    const double factor = alpha / static_cast<double>(rank);
    launch_rows(context, x.extent(0), x.extent(1),
                detail::scale_rows_row<T, Space>{x, offsets.data + offsets.extent(0) - 1,
                                                 static_cast<accumulator_t<T>>(factor)});
  }
};
static_assert(Experts<lora_experts>,
              "graft::lora_experts: it is not of the concept Experts. See what policies/experts/experts.hpp asks for.");

}  // namespace graft
