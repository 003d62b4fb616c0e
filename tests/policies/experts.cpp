// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What the experts of a layer compute: the laws for every form, each against a naive reference, and the forms that are
// equal at their start.

#include "catch.hpp"

#include <cmath>
#include <string>
#include <vector>

#include <graft/core/initialization.hpp>
#include <graft/policies/expert_layout/with_experts.hpp>

#include "laws/experts_laws.hpp"

namespace experts_tests {

using namespace graft;
using namespace graft::test;

namespace {

const lora_experts small_lora{.rank = 3, .alpha = 4.5};

mixed_width_experts mixed(std::initializer_list<index_t> widths) { return {.widths = expert_widths(widths)}; }

// Calls body(form, sizes) for every form, with sizes that break such code: no row at the start, in the middle and at
// the end, one expert, none with a row beyond 16 and one with more.
template <class Body>
void for_every_form(const Body& body) {
  for (const experts_case& sizes : {experts_case{.counts = {3, 0, 4}}, experts_case{.counts = {0, 5, 0, 1, 0}},
                                    experts_case{.counts = {4}}, experts_case{.counts = {1, 19}, .unused = 0}}) {
    body(swiglu_experts{}, sizes);
    body(adapted_experts{}, sizes);
    body(small_lora, sizes);
  }
  body(mixed({5, 2, 5}), experts_case{.counts = {3, 0, 4}});
  body(mixed({1, 4, 4, 7, 7}), experts_case{.counts = {0, 5, 0, 1, 2}});
  body(mixed({3}), experts_case{.counts = {4}});
  body(mixed({2, 33}), experts_case{.counts = {1, 19}, .unused = 0});
}

// a + s b, of one shape; magnitudes: |a| + |s b|.
tensor<double> sum_of(const tensor<double>& a, const tensor<double>& b, double s) {
  tensor<double> sum = a;
  for (std::size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += s * b.values[i];
  return sum;
}
tensor<double> absolute(tensor<double> a) {
  for (double& value : a.values) value = std::abs(value);
  return a;
}
tensor<double> transposed(const tensor<double>& a) {
  tensor<double> t(a.columns, a.rows);
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.columns; ++j) t(j, i) = a.at(i, j);
  return t;
}

// Row `row` of the experts, from the equations: W = w + s B A of its expert, (silu(x W1^T) * (x W3^T)) W2^T A^T.
// With magnitudes, every term by its absolute value, |silu(g)| <= |g|.
template <class Run>
tensor<double> reference_row(Run& run, index_t expert, index_t row, double lora_scale, bool magnitudes) {
  const std::string prefix = std::to_string(expert) + ".";
  const auto part = [&](const tensor<double>& a) { return magnitudes ? absolute(a) : a; };
  const auto weight = [&](const std::string& name) {
    tensor<double> w = part(run.matrix(prefix + name));
    if (run.has(prefix + name + "_lora_a"))
      w = sum_of(w,
                 reference_linear(part(run.matrix(prefix + name + "_lora_b")),
                                  transposed(part(run.matrix(prefix + name + "_lora_a")))),
                 lora_scale);
    return w;
  };
  tensor<double> x(1, run.sizes.width);
  for (index_t i = 0; i < run.sizes.width; ++i) x(0, i) = run.x.at(row, i);
  x = part(x);
  tensor<double> hidden = reference_linear(x, weight("w3"));
  const tensor<double> gate = reference_linear(x, weight("w1"));
  for (std::size_t i = 0; i < hidden.values.size(); ++i)
    hidden.values[i] *= magnitudes ? gate.values[i] : gate.values[i] / (1 + std::exp(-gate.values[i]));
  tensor<double> y = reference_linear(hidden, weight("w2"));
  if (run.has(prefix + "adapter")) y = reference_linear(y, part(run.matrix(prefix + "adapter")));
  return y;
}

template <class P, class Form>
void against_reference(const Form& form, const experts_case& sizes) {
  using T = typename P::storage;
  CAPTURE(Form::name, P::name, sizes.counts);
  context<cpu> ctx({.threads = 1});
  experts_run<P, Form> run(form, sizes);
  run.run(ctx);
  double scale = 0;
  if constexpr (std::is_same_v<Form, lora_experts>) scale = form.alpha / static_cast<double>(form.rank);
  for (index_t e = 0; e < sizes.experts(); ++e)
    for (index_t row = run.offsets[static_cast<std::size_t>(e)]; row < run.offsets[static_cast<std::size_t>(e) + 1];
         ++row) {
      const tensor<double> want = reference_row(run, e, row, scale, false);
      const tensor<double> size = reference_row(run, e, row, scale, true);
      for (index_t i = 0; i < sizes.width; ++i) {
        // The longest way: four products (of at most 33 terms and twice the width), scale, sum, silu; what lies between
        // is rounded to T, eight times.
        const double operations = 2.0 * static_cast<double>(sizes.width) + 2 * 33 + 3 + 16;
        const double allowed =
            bound<T>(want.at(0, i), operations, size.at(0, i)) + 8 * unit_roundoff<T> * size.at(0, i);
        REQUIRE(std::abs(run.out.at(row, i) - want.at(0, i)) <= allowed);
      }
    }
}

// Both forms on the same FFNs and rows; what the second has beyond them is as its initialiser draws it.
template <class First, class Second>
void equal_at_start(const First& first, const Second& second, const experts_case& sizes) {
  context<cpu> ctx({.threads = 1});
  experts_run<fp32, First> a(first, sizes);
  experts_run<fp32, Second> b(second, sizes);
  for (const tensor_entry& entry : b.layout.tensors) {
    const tensor_entry* same = a.layout.find(entry.name);
    if (same != nullptr) {
      REQUIRE(same->size() == entry.size());
      std::copy_n(a.values.data() + same->offset, entry.size(), b.values.data() + entry.offset);
    } else {
      draw_initial(entry, 5, b.values.data() + entry.offset);
    }
  }
  a.run(ctx);
  b.run(ctx);
  CHECK(a.out.values == b.out.values);
  CHECK(a.d_x.values == b.d_x.values);
  for (const tensor_entry& entry : a.layout.tensors) {
    const tensor_entry* same = b.layout.find(entry.name);
    REQUIRE(same != nullptr);
    CHECK(std::equal(a.gradients.begin() + entry.offset, a.gradients.begin() + entry.offset + entry.size(),
                     b.gradients.begin() + same->offset));
  }
}

}  // namespace

TEST_CASE("experts: every form keeps the laws in fp64", "[policies][experts]") {
  for_every_form([](const auto& form, const experts_case& sizes) { experts_laws<fp64>(form, sizes); });
}
TEST_CASE("experts: every form keeps the laws in fp32", "[policies][experts]") {
  for_every_form([](const auto& form, const experts_case& sizes) { experts_laws<fp32>(form, sizes); });
}

TEMPLATE_TEST_CASE("experts: every form against its equation", "[policies][experts]", fp64, fp32, bf16) {
  for_every_form([](const auto& form, const experts_case& sizes) { against_reference<TestType>(form, sizes); });
}

TEST_CASE("experts: adapters, LoRA and equal widths change nothing at the start, bit for bit", "[policies][experts]") {
  for (const experts_case& sizes :
       {experts_case{.counts = {3, 0, 4}}, experts_case{.width = 24, .hidden = 40, .counts = {17, 2, 0}}}) {
    equal_at_start(swiglu_experts{}, adapted_experts{}, sizes);
    equal_at_start(swiglu_experts{}, lora_experts{}, sizes);
    equal_at_start(swiglu_experts{}, mixed({sizes.hidden, sizes.hidden, sizes.hidden}), sizes);
  }
}

// The adapter's gradient is there although the FFN's is not, and is not zero: it can start from the identity; B of LoRA
// too, while A waits for B.
TEST_CASE("experts: what trains first after the start", "[policies][experts]") {
  context<cpu> ctx({.threads = 1});
  const experts_case sizes;
  const role frozen = role::ffn;
  const auto largest = [&](auto& run, const std::string& name) {
    const tensor_entry* entry = run.layout.find(name + ".weight");
    REQUIRE(entry != nullptr);
    double most = 0;
    for (index_t i = 0; i < entry->size(); ++i)
      most = std::max(most, std::abs(run.gradients[static_cast<std::size_t>(entry->offset + i)]));
    return most;
  };
  experts_run<fp64, adapted_experts> with_adapters(adapted_experts{}, sizes);
  experts_run<fp64, lora_experts> with_lora(lora_experts{}, sizes);
  for (const tensor_entry& entry : with_adapters.layout.tensors)
    draw_initial(entry, 1, with_adapters.values.data() + entry.offset);
  for (const tensor_entry& entry : with_lora.layout.tensors)
    draw_initial(entry, 1, with_lora.values.data() + entry.offset);
  with_adapters.run(ctx, &frozen);
  with_lora.run(ctx, &frozen);
  CHECK(largest(with_adapters, "0.adapter") > 0);
  CHECK(largest(with_lora, "0.w2_lora_b") > 0);
  CHECK(largest(with_lora, "2.w1_lora_b") > 0);
  CHECK(largest(with_lora, "2.w1_lora_a") == 0);
}

TEST_CASE("experts: declarations", "[policies][experts]") {
  const transformer_shape shape{.vocabulary = 11,
                                .width = 6,
                                .blocks = 1,
                                .heads = 1,
                                .kv_heads = 1,
                                .head_dim = 6,
                                .hidden = 10,
                                .positions = 8,
                                .experts = 3};
  // Sizes: 3 D F an expert, and what a form adds.
  static_assert(count_parameters(swiglu_experts{}.specs(6, 10, 3)) == 3 * 180);
  static_assert(count_parameters(adapted_experts{}.specs(6, 10, 3)) == 3 * (180 + 36));
  static_assert(count_parameters(lora_experts{.rank = 2}.specs(6, 10, 3)) == 3 * (180 + 3 * 2 * 16));
  static_assert(count_parameters(mixed_width_experts{.widths = {10, 4, 1}}.specs(6, 10, 3)) == 3 * 6 * 15);

  const parameter_layout layout = make_layout(mixed({10, 4, 1}).specs(6, 10, 3));
  std::string text;
  for (const tensor_entry& entry : layout.tensors)
    text += entry.name + " " + std::to_string(entry.rows) + "x" + std::to_string(entry.columns) + " " +
            std::to_string(entry.expert) + "\n";
  CHECK(text ==
        "0.w1.weight 10x6 0\n0.w3.weight 10x6 0\n1.w1.weight 4x6 1\n1.w3.weight 4x6 1\n"
        "2.w1.weight 1x6 2\n2.w3.weight 1x6 2\n"
        "0.w2.weight 6x10 0\n1.w2.weight 6x4 1\n2.w2.weight 6x1 2\n");
  CHECK(layout.parameter_count() == 270);
  CHECK(layout.size == 192 + 128);  // 180 and 90, each up to a multiple of 64

  for (const tensor_entry& entry : make_layout(adapted_experts{}.specs(6, 10, 3)).tensors)
    CHECK((entry.kind == role::adapter) == (entry.name.find("adapter") != std::string::npos));
  for (const tensor_entry& entry : make_layout(lora_experts{}.specs(6, 10, 3)).tensors)
    CHECK((entry.kind == role::adapter) == (entry.name.find("_lora_") != std::string::npos));

  mixed_width layout_of_three;
  layout_of_three.experts_form.widths = {10, 4, 1};
  CHECK(layout_of_three.hidden(shape) == 10);
  CHECK(adapted{}.hidden(shape) == 10);
  CHECK(std::string(adapted::name) == "adapted");
  CHECK(std::string(mixed_width::name) == "mixed_width");
  lora of_rank;
  set_option(of_rank, "rank", 4);
  CHECK(of_rank.experts_form.rank == 4);

  // As command lines say it: how many, then each.
  mixed_width by_options;
  set_option(by_options, "count", 2);
  set_option(by_options, "width_0", 5);
  CHECK_THROWS_WITH(by_options.experts_form.specs(6, 10, 2),
                    "mixed_width_experts: expected widths of at least 1, got 0 for expert 1");
  set_option(by_options, "width_1", 3);
  CHECK(by_options.experts_form.widths == expert_widths{5, 3});
  set_option(by_options, "count", 65);
  CHECK_THROWS_AS(by_options.experts_form.specs(6, 10, 65), error);

  CHECK_THROWS_WITH(mixed({10, 4}).specs(6, 10, 3),
                    "mixed_width_experts: expected a width for each of 3 experts, got 2");
  CHECK_THROWS_WITH(lora_experts{.rank = 0}.specs(6, 10, 3), "lora_experts: expected a rank of at least 1, got 0");
  CHECK_THROWS_AS(mixed({10, 0}), error);
}

TEST_CASE("experts: widths as text", "[policies][experts]") {
  CHECK(parse_expert_widths("16,8,8") == expert_widths{16, 8, 8});
  CHECK(to_text(parse_expert_widths("7")) == "7");
  CHECK(to_text(expert_widths{1, 20, 300}) == "1,20,300");
  for (const char* wrong : {"", "8,", ",8", "8;8", "0", "-4", "8,x", "8.5"})
    CHECK_THROWS_AS(parse_expert_widths(wrong), error);
  std::string many = "1";
  for (int i = 1; i < expert_widths::most; ++i) many += ",1";
  CHECK(parse_expert_widths(many).count == expert_widths::most);
  CHECK_THROWS_AS(parse_expert_widths(many + ",1"), error);
}

TEST_CASE("initialization: identity", "[policies][experts]") {
  tensor_entry entry;
  entry.name = "a";
  entry.rows = 3;
  entry.columns = 4;
  entry.init = initializer::identity();
  std::vector<double> values(12, 9.0);
  draw_initial(entry, 7, values.data());
  CHECK(values == std::vector<double>{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0});
}

}  // namespace experts_tests
