// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Gates: the laws of each, naive references, what is special about each.

#include "catch.hpp"

#include <cmath>
#include <numbers>
#include <vector>

#include <graft/policies/gate/context_gate.hpp>
#include <graft/policies/gate/eigen_gate.hpp>
#include <graft/policies/gate/linear_gate.hpp>
#include <graft/policies/gate/owner_gate.hpp>

#include "laws/gate_laws.hpp"

namespace gate_tests {

using namespace graft;
using namespace graft::test;

namespace {

// The mean of x over the tokens of t's sequence up to t, or all of them, without padding.
template <class G>
std::vector<double> reference_mean(const gate_case<G, double>& of, index_t t, bool whole) {
  std::vector<double> mean(static_cast<std::size_t>(of.x.columns));
  const index_t first = t / of.positions * of.positions, end = whole ? first + of.positions : t + 1;
  double count = 0;
  for (index_t s = first; s < end; ++s) {
    if (of.padding(s)) continue;
    ++count;
    for (index_t i = 0; i < of.x.columns; ++i) mean[static_cast<std::size_t>(i)] += of.x.at(s, i);
  }
  for (double& value : mean) value /= count;
  return mean;
}

// (N, D), rows of all experts in order.
template <class G>
tensor<double> reference_rows(gate_case<G, double>& of, const std::string& name) {
  tensor<double> rows(of.logits.columns, of.x.columns);
  for (index_t e = 0; e < rows.rows; ++e) {
    const std::string own = name.empty() ? "rows.weight" : std::to_string(e) + "." + name;
    const double* values = of.tensor_values(own) + (name.empty() ? e * rows.columns : 0);
    for (index_t i = 0; i < rows.columns; ++i) rows(e, i) = values[i];
  }
  return rows;
}

// Sums of some hundred terms of about 1.
void check_logits(const tensor<double>& got, const tensor<double>& want, const std::vector<std::int32_t>& ids) {
  REQUIRE(got.values.size() == want.values.size());
  for (index_t t = 0; t < got.rows; ++t)
    for (index_t i = 0; ids[static_cast<std::size_t>(t)] >= 0 && i < got.columns; ++i)
      REQUIRE(std::abs(got.at(t, i) - want.at(t, i)) <= 300 * 0x1p-53 * (1 + std::abs(want.at(t, i))));
}

}  // namespace

TEST_CASE("gates keep the laws of gates", "[policies]") {
  SECTION("linear") { gate_laws(linear_gate{}); }
  SECTION("linear with jitter") { gate_laws(linear_gate{.jitter = 0.2}); }
  SECTION("linear with a jitter that is none") {
    for (const double jitter : {-0.1, 1.0})
      CHECK_THROWS_WITH(gate_laws(linear_gate{.jitter = jitter}), Catch::Contains("jitter from 0 to below 1"));
  }
  SECTION("owner") { gate_laws(owner_gate{}); }
  SECTION("context") { gate_laws(context_gate{}); }
  SECTION("context of the whole sequence") { gate_laws(sequence_context_gate{}); }
  SECTION("eigen, rank 2") { gate_laws(eigen_gate{.rank = 2}); }
  SECTION("eigen, rank 5") { gate_laws(eigen_gate{.rank = 5}); }
}

TEST_CASE("owner_gate: l = W x + min(b, 0), but for the public expert", "[policies]") {
  gate_case<owner_gate, double> tested(owner_gate{}, 6, 4, 2, 5, true);
  const double biases[] = {-3, -0.5, 2, 0};
  for (int e = 0; e < 4; ++e) *tested.tensor_values(std::to_string(e) + ".bias.weight") = biases[e];
  tested.forward();
  tensor<double> want = reference_linear(tested.x, reference_rows(tested, "rows.weight"));
  for (index_t t = 0; t < want.rows; ++t) want(t, 1) -= 0.5;
  check_logits(tested.logits, want, tested.ids);

  // A bias that is not below zero is dead, and so is the public expert's.
  tested.backward();
  double sum = 0;
  for (index_t t = 0; t < want.rows; ++t) sum += tested.d_logits.at(t, 1);
  CHECK(std::abs(*tested.tensor_gradients("1.bias.weight") - sum) <= 20 * 0x1p-53 * 10);
  CHECK(sum != 0);
  for (const char* dead : {"0.bias.weight", "2.bias.weight", "3.bias.weight"})
    CHECK(*tested.tensor_gradients(dead) == 0);

  const auto specs = owner_gate{}.specs(transformer_shape{.width = 6}, 4);
  CHECK(specs.bias.init.value == -0.01);
  CHECK(!specs.bias.decay);
  const parameter_layout layout = make_layout(specs);
  REQUIRE(layout.tensors.size() == 8);
  CHECK(layout.find("2.rows.weight")->expert == 2);  // an owner's share can be named
  CHECK(layout.find("2.rows.weight")->kind == role::router);
}

TEMPLATE_TEST_CASE("context gates: a token is mixed with the mean of its context", "[policies]", context_gate,
                   sequence_context_gate) {
  gate_case<TestType, double> tested(TestType{}, 6, 3, 2, 40, true);
  const tensor<double> rows = reference_rows(tested, "");
  const auto want = [&](double share) {
    tensor<double> mixed = tested.x;
    for (index_t t = 0; t < mixed.rows; ++t) {
      const std::vector<double> mean = reference_mean(tested, t, !TestType::causal);
      for (index_t i = 0; i < mixed.columns; ++i)
        mixed(t, i) = (1 - share) * mixed.at(t, i) + share * mean[static_cast<std::size_t>(i)];
    }
    return reference_linear(mixed, rows);
  };
  double& share = *tested.tensor_values("share.weight");
  for (const double value : {0.0, 0.3, 1.0, -0.7, 1.6}) {
    CAPTURE(value);
    share = value;
    tested.forward();
    const double held = std::min(std::max(value, 0.0), 1.0);
    check_logits(tested.logits, want(held), tested.ids);
    // Outside [0, 1] lambda has no gradient; at the bounds it has, so that it can come back.
    tested.backward();
    CHECK((*tested.tensor_gradients("share.weight") != 0) == (value == held));
  }
  CHECK(TestType{}.specs(transformer_shape{.width = 6}, 3).share.init.value == 0.5);
}

TEST_CASE("eigen_gate: the cosine of two projections", "[policies]") {
  for (const int rank : {2, 3}) {
    gate_case<eigen_gate, double> tested(eigen_gate{.rank = rank}, 6, 4, 2, 40, true);
    tested.forward();
    tensor<double> want(tested.logits.rows, 4);
    for (index_t t = 0; t < want.rows; ++t) {
      const std::vector<double> mean = reference_mean(tested, t, false);
      for (index_t e = 0; e < 4; ++e) {
        const double* basis = tested.tensor_values(std::to_string(e) + ".basis.weight");
        double uu = 0, ww = 0, uw = 0;
        for (index_t r = 0; r < rank; ++r) {
          double u = 0, w = 0;
          for (index_t i = 0; i < 6; ++i) {
            u += basis[r * 6 + i] * tested.x.at(t, i);
            w += basis[r * 6 + i] * mean[static_cast<std::size_t>(i)];
          }
          uu += u * u, ww += w * w, uw += u * w;
        }
        want(t, e) = uw / std::sqrt(uu * ww);
      }
    }
    check_logits(tested.logits, want, tested.ids);
    for (index_t e = 0; e < 4; ++e)  // the first token is its own context: no expert is ahead by a rounding error
      CHECK(tested.logits(0, e) == 1.0);
  }

  // A projection of zero has no direction: the score is 0 and nothing is divided by zero.
  gate_case<eigen_gate, double> zero(eigen_gate{.rank = 2}, 6, 3, 1, 3, false);
  for (double& value : zero.x.values) value = 0;
  zero.backward();
  for (const double logit : zero.logits.values) CHECK(logit == 0);
  for (const double g : zero.gradients) CHECK(g == 0);
}

TEST_CASE("eigen_gate: bases that tell no experts apart are refused", "[policies]") {
  const transformer_shape shape{.width = 6};
  const std::string why =
      ", width=6: in one direction every cosine is 1 or -1, and with a complete basis every expert has the same logit";
  for (const int rank : {1, 6, 7, -1})
    CHECK_THROWS_WITH((eigen_gate{.rank = rank}.specs(shape, 3)),
                      "eigen_gate: expected 2 <= rank < width, got rank=" + std::to_string(rank) + why);
  CHECK(eigen_gate{}.specs(transformer_shape{.width = 64}, 3).basis.rows() == 8);
  CHECK(eigen_gate{}.specs(shape, 3).basis.rows() == 2);
}

TEST_CASE("eigen_gate: bases start orthonormal and return to it", "[policies]") {
  using tested_type = gate_case<eigen_gate, double>;
  tested_type tested(eigen_gate{.rank = 4}, 12, 3, 1, 2, false);
  const auto deviation = [&] {
    double worst = 0;
    for (int e = 0; e < 3; ++e) {
      const double* basis = tested.tensor_values(std::to_string(e) + ".basis.weight");
      for (int a = 0; a < 4; ++a)
        for (int b = 0; b < 4; ++b) {
          double dot = 0;
          for (int i = 0; i < 12; ++i) dot += basis[a * 12 + i] * basis[b * 12 + i];
          worst = std::max(worst, std::abs(dot - (a == b ? 1 : 0)));
        }
    }
    return worst;
  };
  // Gram-Schmidt loses u times the condition number of the rows, which 12 normal numbers each leave small.
  CHECK(deviation() <= 100 * 12 * 0x1p-53);
  CHECK(tested.tensor_values("0.basis.weight")[0] != tested.tensor_values("1.basis.weight")[0]);
  const auto start = tested.values;
  context<cpu> ctx({.threads = 1});
  eigen_gate gate{.rank = 4};
  gate.retract<tested_type::compute_type>(ctx, tested.weights());
  for (std::size_t i = 0; i < start.size(); ++i) CHECK(std::abs(tested.values[i] - start[i]) <= 100 * 12 * 0x1p-53);

  const tensor<double> noise = tensor<double>::random(1, static_cast<index_t>(start.size()), 8, 0.05);
  for (std::size_t i = 0; i < start.size(); ++i) tested.values[i] += noise.values[i];
  CHECK(deviation() > 0.01);
  std::vector<double> naive = tested.values;
  gate.retract<tested_type::compute_type>(ctx, tested.weights());
  CHECK(deviation() <= 100 * 12 * 0x1p-53);
  // Row by row, as at the start.
  for (int e = 0; e < 3; ++e)
    graft::detail::orthonormalise_rows(
        naive.data() + (tested.tensor_values(std::to_string(e) + ".basis.weight") - tested.values.data()), 4, 12);
  for (std::size_t i = 0; i < naive.size(); ++i) CHECK(std::abs(tested.values[i] - naive[i]) <= 100 * 12 * 0x1p-53);
  shuffled_context shuffled(3);
  gate.retract<tested_type::shuffled_compute>(shuffled, tested.weights());
  CHECK(deviation() <= 100 * 12 * 0x1p-53);
}

}  // namespace gate_tests
