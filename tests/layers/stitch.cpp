// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// One stitch layer: against the equations, its gradients by finite differences, its dropout, its counts.

#include "catch.hpp"

#include <cmath>
#include <string>
#include <vector>

#include <graft/core/initialization.hpp>
#include <graft/layers/stitch.hpp>
#include <graft/policies/stitch_topology/all_topologies.hpp>

#include "layer_check.hpp"
#include "shuffled_group.hpp"

namespace stitch_tests {

using namespace graft;
using namespace graft::test;

namespace {

using states_type = std::vector<view<double, 2>>;

// A stitch between members of given widths, with random parameters and states.
struct stitch_case {
  std::vector<index_t> widths;
  stitch_layout layout;
  owned_layer<stitch_parameters> layer;
  std::vector<tensor<double>> inputs;
  std::vector<char> read;  // members whose state behind the stitch counts
  bool carry_raw = false;
  double dropout = 0;
  index_t first_token = 0;

  stitch_case(const stitch_step& step, std::vector<index_t> w, std::vector<char> what_is_read, index_t rows = 5)
      : widths(std::move(w)), layout(step, widths), layer(stitch_specs(step, widths)), read(std::move(what_is_read)) {
    for (std::size_t i = 0; i < widths.size(); ++i) inputs.push_back(tensor<double>::random(rows, widths[i], 20 + i));
  }
  stitch_pass<exact> pass(context<cpu>& ctx) const {
    const pass_position at{.seed = 3, .step = 7, .first_token = first_token, .training = dropout > 0};
    return {ctx, at, 2, dropout, carry_raw};
  }
  // The states behind the stitch, copied.
  std::vector<tensor<double>> forward(context<cpu>& ctx, bool keep = true) {
    workspace_scope scope(ctx);
    std::vector<tensor<double>> work = inputs, results;
    states_type states;
    for (auto& each : work) states.push_back(each.matrix());
    stitch_saved<exact> saved;
    stitch_forward(pass(ctx), layout, layer.weights(), inputs[0].rows, states, saved, keep);
    for (const auto& state : states) {
      tensor<double> copied(state.extent(0), state.extent(1));
      for (index_t r = 0; r < copied.rows; ++r)
        for (index_t c = 0; c < copied.columns; ++c) copied(r, c) = state(r, c);
      results.push_back(copied);
    }
    return results;
  }
};

tensor<double> probe_of(const stitch_case& given, std::size_t member, index_t columns) {
  return tensor<double>::random(given.inputs[0].rows, columns, 70 + member, 0.25);
}

double loss_of(context<cpu>& ctx, stitch_case& given) {
  const auto results = given.forward(ctx);
  double sum = 0;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!given.read[i]) continue;
    const tensor<double> probe = probe_of(given, i, results[i].columns);
    for (std::size_t e = 0; e < probe.values.size(); ++e) sum += probe.values[e] * results[i].values[e];
  }
  return sum;
}

// The gradients of all weights and all states; "" or a sentence.
std::string stitch_mismatch(context<cpu>& ctx, stitch_case& given) {
  std::vector<tensor<double>> now, spare;
  std::fill(given.layer.gradients.begin(), given.layer.gradients.end(), 0.5);  // gradients are added
  state_gradients<exact> d;
  {
    workspace_scope scope(ctx);
    std::vector<tensor<double>> work = given.inputs;
    states_type states;
    for (auto& each : work) states.push_back(each.matrix());
    stitch_saved<exact> saved;
    const auto pass = given.pass(ctx);
    stitch_forward(pass, given.layout, given.layer.weights(), given.inputs[0].rows, states, saved, true);
    for (std::size_t i = 0; i < work.size(); ++i) {
      now.push_back(given.read[i] ? probe_of(given, i, given.widths[i])
                                  : tensor<double>(work[i].rows, given.widths[i], 1e300));
      spare.emplace_back(work[i].rows, given.widths[i], 1e300);
    }
    for (std::size_t i = 0; i < work.size(); ++i) {
      d.now.push_back(now[i].matrix());
      d.spare.push_back(spare[i].matrix());
    }
    d.known = given.read;
    stitch_backward(pass, given.layout, given.layer.weights(), given.layer.gradient_views(), saved, d, true);
  }
  for (double& g : given.layer.gradients) g -= 0.5;
  gradient_options options;
  options.name = [&](std::size_t i) { return given.layer.element_name(i); };
  std::string message =
      gradient_mismatch([&] { return loss_of(ctx, given); }, given.layer.values, given.layer.gradients, options);
  for (std::size_t i = 0; i < given.inputs.size() && message.empty(); ++i) {
    if (!d.known[i]) return "member " + std::to_string(i) + " got no gradient";
    options.name = [&](std::size_t e) { return "state " + std::to_string(i) + "[" + std::to_string(e) + "]"; };
    const std::vector<double> gradient(d.now[i].data, d.now[i].data + given.inputs[i].values.size());
    message = gradient_mismatch([&] { return loss_of(ctx, given); }, given.inputs[i].values, gradient, options);
  }
  return message;
}

stitch_step step_of(const stitch_plan& plan, std::size_t k) { return plan.steps[k]; }
stitch_step experts_into_hub(index_t members, index_t hub = 0) { return step_of(into_hub{hub}.plan(1, 1, members), 0); }
stitch_step hub_into_experts(index_t members, index_t hub = 0) {
  return step_of(hub_and_spokes{hub}.plan(2, 2, members), 0);
}

tensor<double> matrix_of_layer(stitch_case& given, const std::string& name) {
  const tensor_entry& entry = given.layer.find(name);
  tensor<double> result(entry.rows, entry.columns);
  std::copy_n(given.layer.tensor_values(name), entry.size(), result.values.begin());
  return result;
}

// Sums of up to 19 terms below 10 in absolute value, one after another: 40 u 10 = 5e-14 in fp64.
constexpr double tolerance = 1e-12;

}  // namespace

TEST_CASE("stitch: experts into the hub and hub into the experts, by the equations", "[layers]") {
  context<cpu> ctx({.threads = 1});
  const std::vector<index_t> widths{19, 19, 19};  // a whole chunk of channels and a part
  {
    stitch_case given(experts_into_hub(3, 1), widths, {1, 1, 1});
    const auto got = given.forward(ctx);
    std::vector<tensor<double>> logits, states;
    for (const int j : {0, 1, 2}) {
      logits.push_back(
          reference_linear(given.inputs[1], matrix_of_layer(given, "gate.1." + std::to_string(j) + ".weight")));
      states.push_back(j == 1 ? given.inputs[1]
                              : reference_linear(given.inputs[j],
                                                 matrix_of_layer(given, "proj.1." + std::to_string(j) + ".weight")));
    }
    tensor<double> want(5, 19);
    for (index_t r = 0; r < 5; ++r)
      for (index_t c = 0; c < 19; ++c) {
        double sum = 0, mixed = 0;
        for (const int j : {0, 1, 2}) sum += std::exp(logits[j](r, c));
        for (const int j : {0, 1, 2}) mixed += std::exp(logits[j](r, c)) / sum * states[j](r, c);
        want(r, c) = mixed;
      }
    const auto within = [](index_t, index_t) { return tolerance; };
    CHECK(mismatch(got[1], want, within) == "");
    CHECK(mismatch(got[0], states[0], within) == "");  // goes on as its projection
    CHECK(mismatch(got[2], states[2], within) == "");
    given.carry_raw = true;
    const auto raw = given.forward(ctx);
    CHECK(same_bits(raw[1], got[1]));
    CHECK(same_bits(raw[0], given.inputs[0]));
  }
  {
    stitch_case given(hub_into_experts(3), widths, {1, 1, 1});
    const auto got = given.forward(ctx);
    CHECK(same_bits(got[0], given.inputs[0]));
    for (const int i : {1, 2}) {
      const std::string place = std::to_string(i) + ".0.weight";
      const auto logits = reference_linear(given.inputs[0], matrix_of_layer(given, "gate." + place));
      const auto projected = reference_linear(given.inputs[0], matrix_of_layer(given, "proj." + place));
      tensor<double> want(5, 19);
      for (index_t r = 0; r < 5; ++r)
        for (index_t c = 0; c < 19; ++c) {
          const double g = 1 / (1 + std::exp(-logits.at(r, c)));
          want(r, c) = (1 - g) * given.inputs[i](r, c) + g * projected.at(r, c);
        }
      CHECK(mismatch(got[i], want, [](index_t, index_t) { return tolerance; }) == "");
    }
  }
}

TEST_CASE("stitch: gradients", "[layers]") {
  context<cpu> ctx({.threads = 1});
  for (const double dropout : {0.0, 0.4}) {
    CAPTURE(dropout);
    const auto check = [&](stitch_case given, bool carry_raw = false) {
      given.dropout = dropout;
      given.carry_raw = carry_raw;
      return stitch_mismatch(ctx, given);
    };
    CHECK(check({experts_into_hub(3), {9, 9, 9}, {1, 1, 1}}) == "");
    CHECK(check({experts_into_hub(2), {17, 17}, {1, 1}, 2}) == "");      // a whole chunk of channels and a part
    CHECK(check({experts_into_hub(3, 2), {9, 9, 9}, {0, 0, 1}}) == "");  // the last stitch of a model
    CHECK(check({experts_into_hub(3, 1), {9, 9, 9}, {0, 1, 1}}) == "");
    CHECK(check({experts_into_hub(3), {9, 9, 9}, {1, 1, 1}}, true) == "");
    CHECK(check({hub_into_experts(3), {9, 9, 9}, {1, 1, 1}}) == "");
    CHECK(check({hub_into_experts(3, 1), {9, 9, 9}, {1, 0, 1}}) == "");  // of the hub what the experts read
    CHECK(check({experts_into_hub(3), {8, 5, 10}, {1, 1, 1}}, true) == "");
    CHECK(check({hub_into_experts(3), {8, 5, 10}, {1, 1, 1}}) == "");
    CHECK(check({step_of(all_to_all{}.plan(2, 2, 3), 0), {8, 5, 10}, {1, 1, 1}}) == "");
  }
  // A merge gated by a third member, which nothing else reads.
  stitch_step step;
  step.after = 1;
  step.merges.push_back({0, 2, stitch_gate::softmax, false, {1}});
  stitch_case third(step, {8, 5, 10}, {1, 0, 0});
  CHECK(stitch_mismatch(ctx, third) == "");
}

TEST_CASE("stitch: in place, in another order and with more threads the bits are the same", "[layers]") {
  context<cpu> one({.threads = 1}), two({.threads = 2});
  for (const stitch_step& step : {experts_into_hub(3), hub_into_experts(3), step_of(all_to_all{}.plan(2, 2, 3), 0)}) {
    stitch_case given(step, {40, 40, 40}, {1, 1, 1}, 300);
    given.dropout = 0.3;
    const auto want = given.forward(one);
    for (const auto& got : {given.forward(one, false), given.forward(two), given.forward(two, false)})
      for (std::size_t i = 0; i < want.size(); ++i) CHECK(same_bits(got[i], want[i]));
  }
  // The row algorithm does not depend on the order of its visits.
  const auto own = tensor<double>::random(6, 21, 1), source = tensor<double>::random(6, 21, 2);
  const auto logits = tensor<double>::random(6, 42, 3);
  tensor<double> serial(6, 21), shuffled(6, 21);
  graft::detail::merge_row<double, double, host_space> row;
  row.gates.own = own.matrix();
  row.gates.logits = logits.matrix();
  row.gates.sources.count = 1;
  row.gates.sources.own_column = 0;
  row.gates.sources.columns[0] = 21;
  row.gates.sources.projected[0] = source.values.data();
  row.out = serial.matrix();
  launch_rows(one, 6, 21, row);
  row.out = shuffled.matrix();
  launch_shuffled(6, 5, row);
  CHECK(same_bits(serial, shuffled));
}

TEST_CASE("stitch: a text that goes through in pieces comes out as one that does not", "[layers]") {
  context<cpu> ctx(context_options{1});
  for (const stitch_step& step : {experts_into_hub(3), hub_into_experts(3)}) {
    stitch_case given(step, {64, 64, 64}, {1, 1, 1}, 9000);
    given.dropout = 0.3;
    REQUIRE(graft::detail::stitched_rows(ctx, given.layout) < 9000);
    const auto whole = given.forward(ctx), pieces = given.forward(ctx, false);
    for (std::size_t i = 0; i < whole.size(); ++i) CHECK(same_bits(whole[i], pieces[i]));
  }
}

TEST_CASE("stitch: dropout is a function of seed, step, stitch, token, member and channel", "[layers]") {
  context<cpu> ctx({.threads = 1});
  stitch_case given(experts_into_hub(3), {16, 16, 16}, {1, 1, 1}, 64);
  const auto without = given.forward(ctx);
  given.dropout = 0.25;
  const auto whole = given.forward(ctx);
  CHECK(same_bits(whole[0], given.forward(ctx)[0]));
  CHECK_FALSE(same_bits(whole[0], without[0]));
  CHECK(same_bits(whole[1], without[1]));  // projections have none

  // The second half of the tokens in a pass of its own.
  stitch_case half = given;
  half.first_token = 32;
  for (std::size_t i = 0; i < half.inputs.size(); ++i) {
    half.inputs[i] = tensor<double>(32, 16);
    std::copy(given.inputs[i].values.begin() + 32 * 16, given.inputs[i].values.end(), half.inputs[i].values.begin());
  }
  const auto second = half.forward(ctx);
  CHECK(std::equal(second[0].values.begin(), second[0].values.end(), whole[0].values.begin() + 32 * 16));

  // As many as the rate says, within five standard deviations, and no two kinds alike.
  const auto dropout = [](index_t stitch, std::uint64_t seed, index_t step) {
    return graft::detail::gate_dropout::of({.seed = seed, .step = step, .training = true}, stitch, 0.25);
  };
  const index_t tokens = 400, chunks = 8;
  const auto bits_of = [&](const graft::detail::gate_dropout& source, unsigned slot) {
    std::vector<unsigned> bits;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t c = 0; c < chunks; ++c) bits.push_back(source.kept(t, slot, c));
    return bits;
  };
  const auto base = bits_of(dropout(2, 3, 7), 1);
  double kept = 0;
  for (const unsigned each : base) kept += __builtin_popcount(each);
  const double count = static_cast<double>(tokens * chunks * graft::detail::stitch_lanes);
  CHECK(std::abs(kept / count - 0.75) < 5 * std::sqrt(0.25 * 0.75 / count));
  CHECK(base != bits_of(dropout(3, 3, 7), 1));
  CHECK(base != bits_of(dropout(2, 4, 7), 1));
  CHECK(base != bits_of(dropout(2, 3, 8), 1));
  CHECK(base != bits_of(dropout(2, 3, 7), 2));
  CHECK(dropout(2, 3, 7).scale<double>() == 65536.0 / 49152.0);
  CHECK(graft::detail::gate_dropout::of({}, 0, 0.25).threshold == 0);  // none in evaluation
}

TEST_CASE("stitch: at the start all members weigh alike, and models that agree stay what they are", "[layers]") {
  context<cpu> ctx({.threads = 1});
  for (const stitch_step& step : {experts_into_hub(3), hub_into_experts(3), step_of(all_to_all{}.plan(2, 2, 3), 0)}) {
    stitch_case given(step, {9, 9, 9}, {1, 1, 1});
    const auto draw = [&](bool gates) {
      for (const tensor_entry& entry : given.layer.layout.tensors)
        if (!gates || entry.name.rfind("proj", 0) == 0)
          draw_initial(entry, 0, given.layer.values.data() + entry.offset);
    };
    draw(false);
    const auto got = given.forward(ctx);
    for (const stitch_merge& merge : step.merges)
      for (std::size_t e = 0; e < got[0].values.size(); ++e) {
        double mean = given.inputs[static_cast<std::size_t>(merge.into)].values[e];
        for (const index_t j : merge.from) mean += given.inputs[static_cast<std::size_t>(j)].values[e];
        mean /= static_cast<double>(merge.from.size() + 1);
        CHECK(std::abs(got[static_cast<std::size_t>(merge.into)].values[e] - mean) < tolerance);
      }
    // Any gates, identity projections, equal states.
    stitch_case equal(step, {9, 9, 9}, {1, 1, 1});
    for (const tensor_entry& entry : equal.layer.layout.tensors)
      if (entry.name.rfind("proj", 0) == 0) draw_initial(entry, 0, equal.layer.values.data() + entry.offset);
    for (auto& each : equal.inputs) each = equal.inputs[0];
    for (const auto& each : equal.forward(ctx)) CHECK(same_bits(each, equal.inputs[0]));
  }
}

TEST_CASE("stitch: gate values are shares", "[layers]") {
  context<cpu> ctx({.threads = 1});
  for (const stitch_step& step : {experts_into_hub(3, 1), hub_into_experts(3)}) {
    stitch_case given(step, {9, 9, 9}, {1, 1, 1});
    workspace_scope scope(ctx);
    states_type states;
    for (auto& each : given.inputs) states.push_back(each.matrix());
    stitch_saved<exact> saved;
    stitch_forward(given.pass(ctx), given.layout, given.layer.weights(), 5, states, saved, true);
    std::vector<double> values(5 * 9, 1e300);
    stitch_gate_means(given.pass(ctx), given.layout, saved, view<double, 3>(values.data(), 5, 3, 3));
    for (index_t t = 0; t < 5; ++t)
      for (index_t into = 0; into < 3; ++into) {
        double sum = 0;
        bool written = false;
        for (const stitch_merge& merge : step.merges) written = written || merge.into == into;
        for (index_t from = 0; from < 3; ++from) sum += values[static_cast<std::size_t>((t * 3 + into) * 3 + from)];
        CHECK(std::abs(sum - (written ? 1 : 0)) < tolerance);
      }
    if (step.merges.size() == 1) continue;
    double want = 0;  // of the second expert, at token 3
    const auto logits = reference_linear(given.inputs[0], matrix_of_layer(given, "gate.2.0.weight"));
    for (index_t c = 0; c < 9; ++c) want += 1 / (1 + std::exp(-logits.at(3, c))) / 9;
    CHECK(std::abs(values[(3 * 3 + 2) * 3 + 0] - want) < tolerance);
  }
}

TEST_CASE("stitch: the idle block of the gate is counted and never trained", "[layers]") {
  const auto specs = stitch_specs(hub_into_experts(3), {8, 8, 8});
  CHECK(count_parameters(specs) == 2 * 64 + 3 * 64);
  CHECK(count_parameters(stitch_specs(experts_into_hub(3), {8, 8, 8})) == 2 * 64 + 3 * 64);
  const parameter_layout layout = make_layout(specs);
  index_t trained = 0;
  for (const tensor_entry& entry : layout.tensors) {
    CHECK(entry.kind == role::stitch);
    CHECK(entry.optimized == (entry.name != "gate.0.0.weight"));
    CHECK(entry.decay == entry.optimized);
    trained += entry.optimized ? entry.size() : 0;
  }
  CHECK(trained == 2 * 64 + 2 * 64);
  CHECK(layout.find("gate.0.0.weight") != nullptr);
  CHECK(layout.find("gate.2.0.weight") != nullptr);
  CHECK(layout.find("proj.2.0.weight") != nullptr);
  // Members of different widths: projections (D_into, D_from).
  const parameter_layout wide = make_layout(stitch_specs(experts_into_hub(2), {8, 5}));
  CHECK(wide.find("proj.0.1.weight")->rows == 8);
  CHECK(wide.find("proj.0.1.weight")->columns == 5);
  CHECK(wide.find("gate.0.1.weight")->rows == 8);
  CHECK(wide.find("gate.0.1.weight")->columns == 8);
}

}  // namespace stitch_tests
