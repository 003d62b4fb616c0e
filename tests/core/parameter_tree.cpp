// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "catch.hpp"

#include <string>
#include <vector>

#include <graft/core/parameter_tree.hpp>

namespace parameter_tree_tests {

using namespace graft;

namespace {

template <class Leaf>
struct attention_part {
  BOOST_HANA_DEFINE_STRUCT(attention_part, (Leaf, qkv_proj), (Leaf, o_proj), (Leaf, q_norm));
};
template <class Leaf>
struct experts_part {
  BOOST_HANA_DEFINE_STRUCT(experts_part, (Leaf, w13), (Leaf, w2));
};
template <class Leaf>
struct mixture_part {
  BOOST_HANA_DEFINE_STRUCT(mixture_part, (Leaf, gate), (experts_part<Leaf>, experts));
};
template <class Leaf>
struct block_part {
  BOOST_HANA_DEFINE_STRUCT(block_part, (Leaf, input_layernorm), (attention_part<Leaf>, self_attn),
                           (mixture_part<Leaf>, block_sparse_moe));
};
template <class Leaf>
struct decoder_part {
  BOOST_HANA_DEFINE_STRUCT(decoder_part, (Leaf, embed_tokens), (std::vector<block_part<Leaf>>, layers), (Leaf, norm));
};
template <class Leaf>
struct model_part {
  BOOST_HANA_DEFINE_STRUCT(model_part, (decoder_part<Leaf>, model), (Leaf, lm_head));
};

constexpr index_t width = 6, hidden = 10, experts = 3, vocabulary = 11;

constexpr block_part<parameter_spec> block_specs() {
  block_part<parameter_spec> specs;
  const auto normal = initializer::normal(0.02);
  specs.input_layernorm = parameter_spec::vector(role::norm, width, initializer::ones());
  specs.self_attn.qkv_proj =
      parameter_spec::fused(role::attention, {{"q_proj", 8}, {"k_proj", 4}, {"v_proj", 4}}, width, normal);
  specs.self_attn.o_proj = parameter_spec::matrix(role::attention, width, 8, normal);
  // q_norm stays absent.
  specs.block_sparse_moe.gate = parameter_spec::matrix(role::router, experts, width, normal);
  specs.block_sparse_moe.experts.w13 =
      parameter_spec::fused(role::ffn, {{"w1", hidden}, {"w3", hidden}}, width, normal).stacked(experts);
  specs.block_sparse_moe.experts.w2 = parameter_spec::matrix(role::ffn, width, hidden, normal).stacked(experts);
  return specs;
}

// 6 + 16*6 + 6*8 + 3*6 + 3*20*6 + 3*6*10
static_assert(count_parameters(block_specs()) == 6 + 96 + 48 + 18 + 360 + 180);
static_assert(parameter_spec{}.size() == 0 && !parameter_spec{}.present());
static_assert(block_specs().block_sparse_moe.experts.w13.rows() == 20 &&
              block_specs().block_sparse_moe.experts.w13.size_per_expert() == 120);

model_part<parameter_spec> model_specs(bool tied) {
  model_part<parameter_spec> specs;
  specs.model.embed_tokens = parameter_spec::matrix(role::embedding, vocabulary, width, initializer::normal(1));
  specs.model.layers.assign(2, block_specs());
  specs.model.norm = parameter_spec::vector(role::norm, width, initializer::ones());
  if (!tied) specs.lm_head = parameter_spec::matrix(role::head, vocabulary, width, initializer::zeros());
  return specs;
}

}  // namespace

TEST_CASE("parameter_tree: names are those of the checkpoint, in order", "[core]") {
  const parameter_layout layout = make_layout(model_specs(false));
  std::vector<std::string> expected = {"model.embed_tokens.weight"};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* name :
         {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
          "block_sparse_moe.gate", "block_sparse_moe.experts.0.w1", "block_sparse_moe.experts.0.w3",
          "block_sparse_moe.experts.1.w1", "block_sparse_moe.experts.1.w3", "block_sparse_moe.experts.2.w1",
          "block_sparse_moe.experts.2.w3", "block_sparse_moe.experts.0.w2", "block_sparse_moe.experts.1.w2",
          "block_sparse_moe.experts.2.w2"})
      expected.push_back(layer + name + ".weight");
  }
  expected.push_back("model.norm.weight");
  expected.push_back("lm_head.weight");
  std::vector<std::string> names;
  for (const tensor_entry& entry : layout.tensors) names.push_back(entry.name);
  CHECK(names == expected);
}

TEST_CASE("parameter_tree: entries say shape, role, expert, initialisation and decay", "[core]") {
  const parameter_layout layout = make_layout(model_specs(false));
  const tensor_entry* norm = layout.find("model.layers.1.input_layernorm.weight");
  REQUIRE(norm != nullptr);
  CHECK((norm->rows == width && norm->columns == 0 && norm->size() == width));
  CHECK((norm->kind == role::norm && norm->expert == -1 && !norm->decay));
  CHECK(norm->init.distribution == initializer::kind::ones);

  const tensor_entry* key = layout.find("model.layers.0.self_attn.k_proj.weight");
  REQUIRE(key != nullptr);
  CHECK((key->rows == 4 && key->columns == width && key->kind == role::attention && key->expert == -1 && key->decay));
  CHECK((key->init.distribution == initializer::kind::normal && key->init.stddev == 0.02));

  const tensor_entry* up = layout.find("model.layers.1.block_sparse_moe.experts.2.w3.weight");
  REQUIRE(up != nullptr);
  CHECK((up->rows == hidden && up->columns == width && up->kind == role::ffn && up->expert == 2));
  CHECK(layout.find("model.layers.2.input_layernorm.weight") == nullptr);
  CHECK(layout.find("model.layers.0.self_attn.q_norm.weight") == nullptr);
}

TEST_CASE("parameter_tree: an absent leaf takes no name and no memory", "[core]") {
  const parameter_layout tied = make_layout(model_specs(true)), untied = make_layout(model_specs(false));
  CHECK(tied.find("lm_head.weight") == nullptr);
  CHECK(untied.find("lm_head.weight") != nullptr);
  CHECK(untied.tensors.size() == tied.tensors.size() + 1);
  CHECK(untied.parameter_count() == tied.parameter_count() + vocabulary * width);
  CHECK(untied.size == tied.size + 128);  // 66 elements, rounded up to a multiple of 64

  std::vector<double> arena(static_cast<std::size_t>(tied.size));
  const auto views = bind_parameters<model_part<parameter_view<double, host_space>>>(
      model_specs(true), view<double, 1>(arena.data(), tied.size));
  CHECK(!views.lm_head.present());
  CHECK(!views.model.layers[1].self_attn.q_norm.present());
  CHECK(views.model.embed_tokens.present());
}

TEST_CASE("parameter_tree: tensors are apart, parameters aligned, counts agree", "[core]") {
  const auto specs = model_specs(false);
  const parameter_layout layout = make_layout(specs);
  CHECK(layout.parameter_count() == count_parameters(specs));
  CHECK(layout.size % 64 == 0);
  index_t end = 0;
  int overlaps = 0, unaligned = 0, gaps = 0;
  for (const tensor_entry& entry : layout.tensors) {
    if (entry.offset < end) ++overlaps;
    if (entry.offset - end >= 64) ++gaps;
    const bool continues = entry.offset == end && end % 64 != 0;  // a later part of a fused or stacked parameter
    if (entry.offset % 64 != 0 && !continues) ++unaligned;
    end = entry.offset + entry.size();
  }
  CHECK(overlaps == 0);
  CHECK(unaligned == 0);
  CHECK(gaps == 0);
  CHECK(layout.size - end < 64);
  for (const char* start :
       {"model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.o_proj.weight",
        "model.layers.0.block_sparse_moe.experts.0.w1.weight", "model.layers.0.block_sparse_moe.experts.0.w2.weight",
        "model.norm.weight", "lm_head.weight"}) {
    REQUIRE(layout.find(start) != nullptr);
    CHECK(layout.find(start)->offset % 64 == 0);
  }
}

TEST_CASE("parameter_tree: views and layout agree on every element", "[core]") {
  const auto specs = model_specs(false);
  const parameter_layout layout = make_layout(specs);
  // Every element of the arena holds its own offset; gaps hold them too but belong to no tensor.
  std::vector<double> arena(static_cast<std::size_t>(layout.size));
  for (std::size_t i = 0; i < arena.size(); ++i) arena[i] = static_cast<double>(i);
  using views_type = model_part<parameter_view<double, host_space>>;
  const auto views = bind_parameters<views_type>(specs, view<double, 1>(arena.data(), layout.size));

  const auto matrix_is = [&](const std::string& name, const view<double, 2>& m) {
    const tensor_entry* entry = layout.find(name);
    if (entry == nullptr || m.extent(0) != entry->rows || m.extent(1) != entry->columns) return false;
    for (index_t r = 0; r < entry->rows; ++r)
      for (index_t c = 0; c < entry->columns; ++c)
        if (m(r, c) != static_cast<double>(entry->offset + r * entry->columns + c)) return false;
    return true;
  };
  CHECK(matrix_is("model.embed_tokens.weight", views.model.embed_tokens.matrix()));
  CHECK(matrix_is("lm_head.weight", views.lm_head.matrix()));
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const std::string path = "model.layers." + std::to_string(layer) + ".";
    const auto& block = views.model.layers[layer];
    CHECK(matrix_is(path + "self_attn.q_proj.weight", block.self_attn.qkv_proj.matrix().rows(0, 8)));
    CHECK(matrix_is(path + "self_attn.k_proj.weight", block.self_attn.qkv_proj.matrix().rows(8, 12)));
    CHECK(matrix_is(path + "self_attn.v_proj.weight", block.self_attn.qkv_proj.matrix().rows(12, 16)));
    CHECK(matrix_is(path + "self_attn.o_proj.weight", block.self_attn.o_proj.matrix()));
    CHECK(matrix_is(path + "block_sparse_moe.gate.weight", block.block_sparse_moe.gate.matrix()));
    for (index_t e = 0; e < experts; ++e) {
      const std::string expert = path + "block_sparse_moe.experts." + std::to_string(e) + ".";
      const auto w13 = block.block_sparse_moe.experts.w13.stacked(), w2 = block.block_sparse_moe.experts.w2.stacked();
      CHECK(matrix_is(expert + "w1.weight", w13[e].rows(0, hidden)));
      CHECK(matrix_is(expert + "w3.weight", w13[e].rows(hidden, 2 * hidden)));
      CHECK(matrix_is(expert + "w2.weight", w2[e]));
    }
    const auto norm = block.input_layernorm.vector();
    CHECK((norm.extent(0) == width &&
           norm[0] == static_cast<double>(layout.find(path + "input_layernorm.weight")->offset)));
  }
}

TEST_CASE("parameter_tree: an arena that is too small is refused", "[core]") {
  const auto specs = model_specs(false);
  const index_t size = make_layout(specs).size;
  std::vector<double> arena(static_cast<std::size_t>(size));
  using views_type = model_part<parameter_view<double, host_space>>;
  std::string what;
  try {
    bind_parameters<views_type>(specs, view<double, 1>(arena.data(), size - 64));
  } catch (const error& e) {
    what = e.what();
  }
  CHECK(what.starts_with("bind_parameters: the arena holds " + std::to_string(size - 64) + " elements"));
}

TEST_CASE("parameter_tree: leaves are visited in the order of the layout", "[core]") {
  auto specs = model_specs(false);
  std::vector<std::string> paths;
  for_each_named_leaf(specs, [&](const std::string& path, const parameter_spec&) { paths.push_back(path); });
  REQUIRE(paths.size() == 3 + 2 * 7u - 0u);
  CHECK(paths.front() == "model.embed_tokens");
  CHECK(paths[2] == "model.layers.0.self_attn.qkv_proj");
  CHECK(paths.back() == "lm_head");
  int leaves = 0;
  for_each_leaf(specs, [&](parameter_spec& spec) {
    ++leaves;
    spec.decay = false;  // a tree that is not const can be changed
  });
  CHECK(leaves == static_cast<int>(paths.size()));
  for (const tensor_entry& entry : make_layout(specs).tensors) CHECK(!entry.decay);
}

TEST_CASE("parameter_tree: a stacked parameter at the root of its tree has a proper name", "[core]") {
  experts_part<parameter_spec> specs;
  specs.w13 = parameter_spec::fused(role::ffn, {{"w1", 2}, {"w3", 2}}, 3, initializer::zeros()).stacked(2);
  const parameter_layout layout = make_layout(specs);
  REQUIRE(layout.tensors.size() == 4);
  CHECK(layout.tensors[0].name == "0.w1.weight");
  CHECK(layout.tensors[3].name == "1.w3.weight");
}

TEST_CASE("parameter_spec: every role has its name", "[core]") {
  std::string names;
  for (const role kind : all_roles) names += std::string(name_of(kind)) + " ";
  CHECK(names == "embedding attention norm ffn router head stitch adapter ");
}

}  // namespace parameter_tree_tests
