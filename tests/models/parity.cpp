// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Parity with Hugging Face transformers: logits, loss and every gradient of tiny random checkpoints against what
// transformers computed from them in double precision (tests/data/parity/make_parity.py). Both sides start from the
// same bits: the weights are stored in F32.
//
// Tolerances. To first order a rounding of unit roundoff u moves a result as a weight that is off by u of itself does.
// So the condition of a tensor is measured, in double precision: how far its elements move when all weights are off by
// a small share, over that share. With n roundings on the longest way from a weight to a result, independent of each
// other, the tensor is allowed lambda sqrt(n) u times its condition, lambda = 4 (Higham and Mary, "A new approach to
// probabilistic rounding error analysis", 2019: fails with probability below 2 exp(-lambda^2 / 2)).

#include "catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <graft/io/model_directory.hpp>

#include "model_check.hpp"

namespace parity_tests {

using namespace graft;
using namespace graft::test;

namespace {

using hub_mixture = mixture<top_k<2>, no_balancer, routed>;
using results = std::map<std::string, std::vector<double>>;  // by the names in expected.safetensors

// expected.safetensors of a folder.
struct expectation {
  token_batch batch{1, 1, 1};  // overwritten
  results values;
};

std::vector<std::int32_t> read_tokens(const safetensors_file& file, const char* name) {
  const stored_tensor* tensor = file.find(name);
  REQUIRE(tensor != nullptr);
  REQUIRE(tensor->dtype == file_dtype::i32);
  std::vector<std::int32_t> tokens(tensor->size());
  std::memcpy(tokens.data(), file.bytes(*tensor).data(), tensor->bytes());
  return tokens;
}

expectation read_expectation(const std::filesystem::path& folder) {
  const safetensors_file file(folder / "expected.safetensors");
  expectation result;
  result.batch.inputs = read_tokens(file, "inputs");
  result.batch.targets = read_tokens(file, "targets");
  result.batch.sequences = static_cast<index_t>(file.find("inputs")->shape[0]);
  result.batch.positions = static_cast<index_t>(file.find("inputs")->shape[1]);
  for (const stored_tensor& tensor : file.tensors()) {
    if (tensor.name == "inputs" || tensor.name == "targets") continue;
    REQUIRE(tensor.dtype == file_dtype::f64);
    std::vector<double>& values = result.values[tensor.name];
    values.resize(tensor.size());
    file.read(tensor, values.data());
  }
  return result;
}

// Logits, loss and gradients of a model.
template <class Model>
results compute_results(Model& model, const token_batch& batch) {
  results values;
  const index_t rows = batch.sequences * batch.positions, vocabulary = model.shape().vocabulary;
  std::vector<typename Model::M> logits(static_cast<std::size_t>(rows * vocabulary));
  model.logits(matrix_view<typename Model::M>(logits.data(), rows, vocabulary), batch.input());
  values["logits"].assign(logits.begin(), logits.end());

  model.clear_metrics();
  model.parameters().set_trainable({});
  const double token_scale = 1.0 / static_cast<double>(batch.target_count());
  model.forward_backward(batch.input(), batch.target(), {.token_scale = token_scale});
  values["loss"] = {token_scale * model.metrics().loss_sum};
  const auto naming = naming_of(family_of(model.shape()).family);
  for (const tensor_entry& entry : model.layout().tensors) {
    const auto place = locate(entry.name, detail::extents_of(entry), naming, model.shape().experts);
    const auto* first = model.parameters().gradients().data + entry.offset;
    values["gradient." + place.name].assign(first, first + entry.size());
  }
  return values;
}

// The largest distance of two elements; NaN if any is.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (const double off = std::abs(a[i] - b[i]); !(off <= largest)) largest = off;
  return largest;
}
double largest_of(const std::vector<double>& a) { return distance(a, std::vector<double>(a.size())); }

// Through the forward and back through the backward pass, the length of every reduction: projections, scores, softmax,
// values, norms, feed-forward, norms of heads, routing, head.
double roundings_of(const transformer_shape& shape, index_t positions) {
  const index_t head_norm = shape.qk_norm ? shape.head_dim : 0,
                routing = shape.experts > 0 ? shape.width + 2 * shape.experts : 0;
  const index_t attention = shape.width + head_norm + shape.head_dim + 2 * positions + shape.query_width();
  const index_t feed_forward = shape.width + shape.hidden + routing;
  const index_t norms = 2 * shape.width;
  return 2.0 *
         static_cast<double>(shape.blocks * (attention + feed_forward + norms) + 2 * shape.width + shape.vocabulary);
}

// The condition of every result; see above. Leaves the weights as they were.
template <class Mixture>
std::map<std::string, double> conditions_of(transformer<Mixture, compute<fp64, cpu>>& model, const token_batch& batch) {
  constexpr double share = 0x1p-30;
  const auto arena = model.parameters().master();
  const std::vector<double> weights(arena.data, arena.data + arena.size());
  const results base = compute_results(model, batch);
  std::map<std::string, double> conditions;
  for (std::uint64_t trial = 0; trial < 4; ++trial) {
    const random_source draw{trial, random_stream::data};
    for (index_t i = 0; i < arena.size(); ++i)
      arena[i] *= draw.below(2, 0, static_cast<std::uint64_t>(i)) == 0 ? 1 + share : 1 - share;
    for (const auto& [name, values] : compute_results(model, batch)) {
      double& condition = conditions[name];
      condition = std::max(condition, distance(values, base.at(name)) / share);
    }
    std::copy(weights.begin(), weights.end(), arena.data);
  }
  return conditions;
}

// The tensors that are further off than their condition allows, empty if none. A bound above `meaningful` of a tensor's
// largest element would be none, and is told too.
std::string mismatch(const results& got, const expectation& expected, const std::map<std::string, double>& conditions,
                     double relative_error, double meaningful) {
  std::ostringstream text;
  for (const auto& [name, want] : expected.values) {
    const auto at = got.find(name);
    if (at == got.end() || at->second.size() != want.size()) {
      text << name << " is not computed or has another size\n";
      continue;
    }
    const double off = distance(at->second, want), allowed = relative_error * conditions.at(name),
                 size = largest_of(want);
    if (!(off <= allowed))
      text << name << " is off by " << off << ", allowed are " << allowed << ", its largest is " << size << '\n';
    if (!(allowed <= meaningful * size))
      text << name << " may be off by " << allowed << ", its largest is " << size << '\n';
  }
  for (const auto& item : got)
    if (!expected.values.contains(item.first)) text << item.first << " is not expected\n";
  return text.str();
}

template <class Model>
results load_and_compute(Model& model, const std::filesystem::path& folder, const token_batch& batch) {
  load_parameters(folder, model.layout(), model.parameters().master().data);
  model.parameters().refresh(model.context());
  return compute_results(model, batch);
}

template <class Mixture>
struct comparison {
  std::string fp64_mismatch, fp32_mismatch;

  // Of the model in the folder, computed as `shape` says.
  comparison(const std::filesystem::path& folder, const transformer_shape& shape) {
    const expectation expected = read_expectation(folder);
    const double lambda = 4, errors = lambda * std::sqrt(roundings_of(shape, expected.batch.positions));
    context<cpu> ctx({.threads = 1});
    transformer<Mixture, compute<fp64, cpu>> wide(ctx, shape);
    transformer<Mixture, compute<fp32, cpu>> narrow(ctx, shape);
    const results wide_results = load_and_compute(wide, folder, expected.batch);
    const results narrow_results = load_and_compute(narrow, folder, expected.batch);
    const auto conditions = conditions_of(wide, expected.batch);
    // Doubled: transformers rounds as graft does.
    fp64_mismatch = mismatch(wide_results, expected, conditions, 2 * errors * unit_roundoff<double>, 1e-10);
    fp32_mismatch = mismatch(narrow_results, expected, conditions, errors * unit_roundoff<float>, 1e-2);
  }
};

const std::filesystem::path data = std::filesystem::path(GRAFT_TEST_DATA_DIR) / "parity";

transformer_shape shape_of(const char* name) { return load_model_info(data / name).config.shape; }

}  // namespace

TEST_CASE("models: dense checkpoints give what transformers computes from them", "[models]") {
  const char* name = GENERATE("llama", "llama_tied_gqa_rope3", "qwen3");
  CAPTURE(name);
  const comparison<no_mixture> result(data / name, shape_of(name));
  CHECK(result.fp64_mismatch == "");
  CHECK(result.fp32_mismatch == "");
}

TEST_CASE("models: mixture checkpoints give what transformers computes from them", "[models]") {
  const char* name = GENERATE("mixtral", "qwen3_moe");
  CAPTURE(name);
  const comparison<hub_mixture> result(data / name, shape_of(name));
  CHECK(result.fp64_mismatch == "");
  CHECK(result.fp32_mismatch == "");
}

TEST_CASE("models: parity tells apart models that differ in one setting", "[models]") {
  const std::string logits_line = "logits is off by ";
  transformer_shape shape = shape_of("llama_tied_gqa_rope3");
  SECTION("the epsilon of the norms, by a part in ten thousand") { shape.norm_eps *= 1.0001; }
  SECTION("no scaling of the rotary frequencies") { shape.scaling = {}; }
  SECTION("another blend of the rotary frequencies") { shape.scaling.high_frequency_factor = 3.999; }
  SECTION("another base of the rotary frequencies") { shape.rope_theta *= 1.0001; }
  const comparison<no_mixture> result(data / "llama_tied_gqa_rope3", shape);
  CHECK(result.fp64_mismatch.find(logits_line) != std::string::npos);
}

TEST_CASE("models: parity tells apart mixtures of one and of two experts a token", "[models]") {
  const comparison<mixture<top_k<1>, no_balancer, routed>> result(data / "mixtral", shape_of("mixtral"));
  CHECK(result.fp64_mismatch.find("logits is off by ") != std::string::npos);
  CHECK(result.fp32_mismatch.find("logits is off by ") != std::string::npos);
}

}  // namespace parity_tests
