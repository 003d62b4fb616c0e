// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The laws of the concept Gate (policies/gate/gate.hpp). A test of a gate of your own:
//
//   #include "catch.hpp"
//   #include "laws/gate_laws.hpp"
//   TEST_CASE("my_gate keeps the laws of gates") { graft::test::gate_laws(my_gate{}); }

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <graft/backend/cpu/cpu.hpp>
#include <graft/core/initialization.hpp>
#include <graft/layers/compute.hpp>
#include <graft/policies/gate/gate.hpp>

#include "gradient_check.hpp"
#include "reference.hpp"
#include "shuffled_context.hpp"

namespace graft::test {

// A gate with its parameters and one pass of tokens, in numbers of type M. Members may be changed between calls.
template <class G, class M>
struct gate_case {
  using compute_type = compute<std::conditional_t<std::is_same_v<M, double>, fp64, fp32>, cpu>;
  template <class Leaf>
  using parameters = typename G::template parameters<Leaf>;

  // As compute_type, but rows are visited in random order.
  struct shuffled_compute : compute_type {
    using context_type = shuffled_context;
  };

  G gate;
  parameters<parameter_spec> specs;
  parameter_layout layout;
  std::vector<M> values, gradients;
  tensor<M> x, d_x, logits, d_logits;
  std::vector<std::int32_t> ids;  // -1: padding
  index_t positions;
  pass_position at{.seed = 5, .step = 2, .first_token = 0, .training = true};

  // Parameters: normal numbers for those that start so, near their initial value for those that start as a constant.
  gate_case(const G& tested, index_t width, index_t count, index_t sequences, index_t length, bool padded)
      : gate(tested),
        specs(gate.specs(transformer_shape{.width = width}, count)),
        layout(make_layout(specs)),
        values(static_cast<std::size_t>(layout.size)),
        x(tensor<M>::random(sequences * length, width, 21)),
        logits(sequences * length, count),
        d_logits(tensor<M>::random(sequences * length, count, 22, 0.5)),
        ids(static_cast<std::size_t>(sequences * length), 7),
        positions(length) {
    const random_source draw{4, random_stream::data};
    for (std::size_t i = 0; i < layout.tensors.size(); ++i) {
      tensor_entry entry = layout.tensors[i];
      if (entry.init.distribution == initializer::kind::normal) entry.init.stddev = 0.5;
      draw_initial(entry, 3, values.data() + entry.offset);
      if (entry.init.distribution != initializer::kind::constant) continue;
      for (index_t j = 0; j < entry.size(); ++j)
        values[static_cast<std::size_t>(entry.offset + j)] *=
            static_cast<M>(1 + 0.2 * std::sin(draw.normal(i, static_cast<std::uint64_t>(j))));
    }
    // At the end, at the beginning and inside of sequences.
    for (std::size_t t = 0; padded && t < ids.size(); ++t)
      if (t % static_cast<std::size_t>(length) == static_cast<std::size_t>(length - 1) || t % 7 == 2) ids[t] = -1;
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t i = 0; padding(t) && i < count; ++i) d_logits(t, i) = 0;
  }

  bool padding(index_t t) const { return ids[static_cast<std::size_t>(t)] < 0; }
  routing_pass<M, host_space> pass() const {
    return {.at = at,
            .experts = logits.columns,
            .positions = positions,
            .ids = view<const std::int32_t, 1>(ids.data(), static_cast<index_t>(ids.size())),
            .selection_bias = {}};
  }
  parameters<typename compute_type::weight> weights() {
    return bind_parameters<parameters<typename compute_type::weight>>(
        specs, vector_view<M>(values.data(), static_cast<index_t>(values.size())));
  }
  M* tensor_values(const std::string& name) { return values.data() + find(name).offset; }
  M* tensor_gradients(const std::string& name) { return gradients.data() + find(name).offset; }

  template <class Compute = compute_type>
  void forward(typename Compute::context_type& ctx) {
    workspace_scope scope(ctx);
    logits = tensor<M>(x.rows, logits.columns, std::numeric_limits<double>::quiet_NaN());  // must be replaced
    gate.template forward<Compute>(ctx, pass(), weights(), logits.matrix(), std::as_const(x).matrix());
  }
  void forward(int threads = 1) {
    context<cpu> ctx({.threads = threads});
    forward(ctx);
  }
  // Gradients are added to what is there, which is taken off again. frozen: those of the parameters are absent.
  template <class Compute = compute_type>
  void backward(typename Compute::context_type& ctx, bool frozen = false) {
    workspace_scope scope(ctx);
    const M before = M(0.5);
    gradients.assign(values.size(), before);
    d_x = tensor<M>(x.rows, x.columns, 0.5);
    parameters<typename compute_type::gradient> views{};
    if (!frozen)
      views = bind_parameters<parameters<typename compute_type::gradient>>(
          specs, vector_view<M>(gradients.data(), static_cast<index_t>(gradients.size())));
    tensor<M> upstream = d_logits;  // may be overwritten
    const auto saved =
        gate.template forward<Compute>(ctx, pass(), weights(), logits.matrix(), std::as_const(x).matrix());
    gate.template backward<Compute>(ctx, pass(), weights(), views, saved, upstream.matrix(), std::as_const(x).matrix(),
                                    d_x.matrix());
    for (M& g : gradients) g -= before;
    for (M& g : d_x.values) g -= before;
  }
  void backward(int threads = 1, bool frozen = false) {
    context<cpu> ctx({.threads = threads});
    backward(ctx, frozen);
  }
  double loss() {
    forward();
    double sum = 0;
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t i = 0; !padding(t) && i < logits.columns; ++i) sum += d_logits.at(t, i) * logits.at(t, i);
    return sum;
  }
  // Whether logits [begin, end) of tokens are the bits of another's; padding is not looked at.
  bool same_logits(const tensor<M>& other, index_t begin, index_t end) const {
    for (index_t t = begin; t < end; ++t)
      if (!padding(t) && std::memcmp(logits.matrix().row(t), other.matrix().row(t),
                                     static_cast<std::size_t>(logits.columns) * sizeof(M)) != 0)
        return false;
    return true;
  }

 private:
  const tensor_entry& find(const std::string& name) const {
    const tensor_entry* entry = layout.find(name);
    GRAFT_CHECK(entry != nullptr, "test: no tensor ", name);
    return *entry;
  }
};

// All gradients by finite differences. A gradient of zero throughout is for the caller to allow.
template <class G>
void check_gate_gradients(gate_case<G, double>& tested) {
  tested.backward();
  gradient_options options;
  options.name = [&](std::size_t i) {
    std::string name;
    for (const tensor_entry& entry : tested.layout.tensors)
      if (static_cast<std::size_t>(entry.offset) <= i) name = entry.name + " " + std::to_string(i);
    return name;
  };
  const auto loss = [&] { return tested.loss(); };
  REQUIRE(gradient_mismatch(loss, tested.values, tested.gradients, options) == "");
  REQUIRE(gradient_mismatch(loss, tested.x.values, tested.d_x.values) == "");
}

namespace detail {

// Sequences of one token, of a few, and of more than one chunk of a running mean; one logit and several.
template <class G>
void gate_gradient_laws(const G& gate) {
  for (const bool padded : {false, true})
    for (const index_t length : {1, 6, 37})  // 37: more than one chunk of a running mean
      for (const index_t count : {1, 3}) {
        CAPTURE(padded, length, count);
        if ((padded && length == 1) || (length == 37 && count == 1)) continue;  // chunks know nothing of the count
        gate_case<G, double> tested(gate, 6, count, 2, length, padded);
        tested.backward();
        bool zero = true;
        for (const double g : tested.gradients) zero = zero && std::abs(g) < 1e-12;
        // One token is its own context, so that a comparison of the two is constant.
        if (zero && length == 1) continue;
        check_gate_gradients(tested);
      }
}

template <class G, class M>
void gate_independence_laws(const G& gate) {
  constexpr index_t length = 70, count = 3, half = 33;
  gate_case<G, M> tested(gate, 6, count, 2, length, true);
  tested.forward();
  const tensor<M> before = tested.logits;
  for (const M logit : before.values) REQUIRE(std::isfinite(logit));
  tested.backward();
  const std::vector<M> gradients = tested.gradients;
  const tensor<M> d_x = tested.d_x;

  // Same bits twice, on two threads, and d_x does not depend on which parameters are trained.
  tested.forward(2);
  REQUIRE(same_bits(tested.logits, before));
  tested.backward(2);
  REQUIRE(tested.gradients == gradients);
  REQUIRE(same_bits(tested.d_x, d_x));
  tested.backward(1, true);
  REQUIRE(same_bits(tested.d_x, d_x));

  // Padding: its input changes no logit, no gradient of a parameter and none of another token; it has none itself.
  const tensor<M> x = tested.x;
  for (index_t t = 0; t < tested.x.rows; ++t)
    for (index_t i = 0; tested.padding(t) && i < tested.x.columns; ++i) {
      REQUIRE(d_x.at(t, i) == 0.0);
      tested.x(t, i) = M(100) - x.matrix()(t, i);
    }
  tested.forward();
  REQUIRE(tested.same_logits(before, 0, 2 * length));
  tested.backward();
  REQUIRE(tested.gradients == gradients);
  REQUIRE(tested.d_x.values == d_x.values);
  tested.x = x;

  // Another sequence changes nothing; neither does a later token, if the gate is causal. If it says that it is not, the
  // later token is read.
  for (index_t t = length; t < 2 * length; ++t)
    for (index_t i = 0; i < tested.x.columns; ++i) tested.x(t, i) += M(1);
  tested.forward();
  REQUIRE(tested.same_logits(before, 0, length));
  REQUIRE(!tested.same_logits(before, length, 2 * length));
  tested.x = x;
  for (index_t t = half; t < length; ++t)
    for (index_t i = 0; i < tested.x.columns; ++i) tested.x(t, i) += M(t % 3 + i % 2);
  tested.forward();
  REQUIRE(tested.same_logits(before, 0, half) == graft::detail::gate_causal<G>());
  REQUIRE(tested.same_logits(before, length, 2 * length));
  REQUIRE(!tested.same_logits(before, half, length));
  tested.x = x;
  // An earlier token is read by others if the gate says so, and by them alone.
  for (index_t t = 0; t < half; ++t)
    for (index_t i = 0; i < tested.x.columns; ++i) tested.x(t, i) += M(t % 3 + i % 2);
  tested.forward();
  REQUIRE(tested.same_logits(before, half, length) == !graft::detail::gate_reads_context<G>());
}

// Rows visited in any order, and float against double on the same numbers: equal but for rounding. Every number here is
// about 1 in size and a sum of up to `terms` products.
template <class G>
void gate_rounding_laws(const G& gate) {
  constexpr index_t length = 40, width = 8, count = 4;
  gate_case<G, double> tested(gate, width, count, 3, length, true);
  gate_case<G, float> narrow(gate, width, count, 3, length, true);
  // Both start from the numbers of the narrow one.
  tested.values.assign(narrow.values.begin(), narrow.values.end());
  tested.x = narrow.x.wide();
  tested.d_logits = narrow.d_logits.wide();
  tested.forward();
  tested.backward();
  const auto agree = [&](const auto& got, const auto& want, double allowed) {
    double largest = 1;
    for (const double value : want) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < want.size(); ++i)
      REQUIRE(std::abs(static_cast<double>(got[i]) - want[i]) <= allowed * largest);
  };
  const tensor<double> logits = tested.logits, d_x = tested.d_x;
  const std::vector<double> gradients = tested.gradients;

  // Sums of 3 * 40 tokens of 8 columns, and the inverse of the length of a projection, which may be a tenth.
  const double terms = 10.0 * (3 * length + width);
  narrow.forward();
  narrow.backward();
  const auto real = [&](index_t t) { return !tested.padding(t); };
  for (index_t t = 0; t < logits.rows; ++t)
    for (index_t i = 0; real(t) && i < count; ++i)
      REQUIRE(std::abs(narrow.logits.at(t, i) - logits.at(t, i)) <= terms * 0x1p-24 * (1 + std::abs(logits.at(t, i))));
  agree(narrow.gradients, gradients, terms * 0x1p-24);
  agree(narrow.d_x.values, d_x.values, terms * 0x1p-24);

  using shuffled = typename gate_case<G, double>::shuffled_compute;
  for (std::uint32_t seed = 1; seed <= 3; ++seed) {
    shuffled_context ctx(seed);
    tested.template forward<shuffled>(ctx);
    for (index_t t = 0; t < logits.rows; ++t)
      for (index_t i = 0; real(t) && i < count; ++i)
        REQUIRE(std::abs(tested.logits.at(t, i) - logits.at(t, i)) <=
                terms * 0x1p-53 * (1 + std::abs(logits.at(t, i))));
    tested.template backward<shuffled>(ctx);
    agree(tested.gradients, gradients, terms * 0x1p-53);
    agree(tested.d_x.values, d_x.values, terms * 0x1p-53);
  }
}

}  // namespace detail

// All laws, in both precisions where that means something, at widths of 6 and above.
template <Gate G>
void gate_laws(const G& gate) {
  detail::gate_gradient_laws(gate);
  detail::gate_independence_laws<G, double>(gate);
  detail::gate_independence_laws<G, float>(gate);
  detail::gate_rounding_laws(gate);
  // Enough work for a second thread, in all of a gate's steps.
  gate_case<G, float> large(gate, 96, 24, 4, 200, true);
  large.backward();
  const tensor<float> logits = large.logits, d_x = large.d_x;
  const std::vector<float> gradients = large.gradients;
  large.backward(2);
  REQUIRE(same_bits(large.logits, logits));
  REQUIRE(same_bits(large.d_x, d_x));
  REQUIRE(large.gradients == gradients);
}

}  // namespace graft::test
