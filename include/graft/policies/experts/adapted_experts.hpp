// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// adapted_experts: a square matrix behind every expert, so that frozen experts of different origin learn to add up.

#include <cstdint>

#include <graft/policies/experts/swiglu_experts.hpp>

namespace graft {

// y_e = A_e FFN_e(x), A_e (D, D), the identity at the start: the layer then computes what it computes without. FFN_e is
// that of swiglu_experts; A_e has the role adapter, so that it trains while the FFNs are frozen.
// Cost: D^2 parameters an expert, one more product of (R, D) each way.
// Source: the baseline "BAM with adapters" of Zhang et al., "BTS: Harmonizing specialized experts", 2025, arXiv
// 2502.00075, for the mixtures of Zhang et al., "BAM!", 2024, arXiv 2408.08274. Its start is not stated there.
struct adapted_experts {
  static constexpr const char* name = "adapted";

  template <class Leaf>
  struct parameters {
    BOOST_HANA_DEFINE_STRUCT(parameters, (Leaf, w13), (Leaf, w2), (Leaf, adapter));
  };

  constexpr parameters<parameter_spec> specs(index_t width, index_t hidden, index_t experts) const {
    const auto base = swiglu_experts().specs(width, hidden, experts);
    return {base.w13, base.w2,
            parameter_spec::matrix(role::adapter, width, width, initializer::identity()).stacked(experts)};
  }

  template <class Compute>
  struct saved {
    swiglu_experts::saved<Compute> ffn;
    view<typename Compute::storage, 2, typename Compute::space> results;  // (R, D)
  };

  template <class Compute>
  saved<Compute> forward(typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
                         view<const std::int32_t, 1, typename Compute::space> offsets,
                         view<const typename Compute::storage, 2, typename Compute::space> rows) const {
    saved<Compute> saved;
    saved.ffn =
        swiglu_experts().template forward<Compute>(context, base<typename Compute::weight>(weights), offsets, rows);
    saved.results = context.template allocate<typename Compute::storage>(rows.extent(0), rows.extent(1));
    grouped_gemm_nt(context, saved.results, saved.ffn.results, weights.adapter.stacked(), offsets, accumulate::no);
    return saved;
  }

  //   d_A_e += d_y^T FFN_e(x),   d_FFN_e = d_y A_e
  template <class Compute>
  view<typename Compute::storage, 2, typename Compute::space> backward(
      typename Compute::context_type& context, const parameters<typename Compute::weight>& weights,
      const parameters<typename Compute::gradient>& gradients, const saved<Compute>& saved,
      view<const std::int32_t, 1, typename Compute::space> offsets,
      view<const typename Compute::storage, 2, typename Compute::space> rows) const {
    if (gradients.adapter.present())
      grouped_gemm_tn(context, gradients.adapter.stacked(), saved.results, saved.ffn.results, offsets, accumulate::yes);
    grouped_gemm_nn(context, saved.ffn.results, saved.results, weights.adapter.stacked(), offsets, accumulate::no);
    return swiglu_experts().template backward<Compute>(context, base<typename Compute::weight>(weights),
                                                       base<typename Compute::gradient>(gradients), saved.ffn, offsets,
                                                       rows);
  }

 private:
  template <class Leaf>
  static swiglu_experts::parameters<Leaf> base(const parameters<Leaf>& all) {
    return {all.w13, all.w2};
  }
};
static_assert(
    Experts<adapted_experts>,
    "graft::adapted_experts: it is not of the concept Experts. See what policies/experts/experts.hpp asks for.");

}  // namespace graft
