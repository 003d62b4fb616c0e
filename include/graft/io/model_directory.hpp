// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Model directories in the Hugging Face layout: config.json, weights, tokenizer files, and graft.json. Every tensor of
// the files is used exactly once and every parameter set exactly once, or nothing is loaded and the error names them.
// A directory that holds config.json is complete: it is written last.
//
// A model that a family of the hub computes is saved as one of that family. Any other (another router than softmax and
// top-k, parameters that no family has, an averaged shared expert, ...) is saved with the model_type "graft": other
// programs refuse it by that name, instead of computing something else from weights that look familiar, and graft.json
// says what it is made of. A layout's capacity stands in graft.json alone: elsewhere no token is dropped.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <graft/core/error.hpp>
#include <graft/core/parameter_tree.hpp>
#include <graft/io/atomic_folder.hpp>
#include <graft/io/config.hpp>
#include <graft/io/family/expert_naming.hpp>
#include <graft/io/graft_json.hpp>
#include <graft/io/hub_tokenizer.hpp>
#include <graft/io/tensor_files.hpp>
#include <graft/io/tokenizer_files.hpp>

namespace graft {

struct model_info {
  std::filesystem::path folder;
  model_config config;
  std::optional<model_card> card;  // none in a directory that graft did not write
  tokenizer_card tokenizer{};      // as graft.json says, else as the tokenizer files are
  model_family family = model_family::llama;
};

struct save_options {
  file_dtype dtype = file_dtype::f32;  // F32, BF16 or F64
  std::uint64_t shard_bytes = default_shard_bytes;
  std::filesystem::path
      tokenizer_from{};  // directory whose tokenizer files are taken along, unless the tokenizer is the byte tokenizer
};

// What a load did beyond the plain: sentences for a person.
struct load_report {
  std::vector<std::string> notes;
};

namespace detail {

inline std::vector<std::uint64_t> extents_of(const tensor_entry& entry) {
  if (entry.columns == 0) return {static_cast<std::uint64_t>(entry.rows)};
  return {static_cast<std::uint64_t>(entry.rows), static_cast<std::uint64_t>(entry.columns)};
}

// "3 tensors (a, b, c)": at most five names.
inline std::string counted_names(const std::vector<std::string>& names) {
  constexpr std::size_t most = 5;
  std::string text = std::to_string(names.size()) + (names.size() == 1 ? " tensor (" : " tensors (");
  for (std::size_t i = 0; i < names.size() && i < most; ++i) text += (i > 0 ? ", " : "") + names[i];
  return text + (names.size() > most ? ", ...)" : ")");
}

// Whether the weights that a router of the hub's families gives sum to one; nothing for another router.
inline std::optional<bool> normalises(const policy_card& router) {
  for (const auto& [key, value] : router.options.items())
    if (key != "experts_per_token" && key != "gate.stddev" && key != "gate.jitter") return std::nullopt;
  if (router.name == "top_k" || router.name == "renormalised_top_k") return true;
  if (router.name == "softmax_top_k" || router.name == "switch_top_1") return false;
  return std::nullopt;
}

// The mode of the shared expert of a layout, by its name: "shared_gated+capacity".
inline shared_expert_mode shared_mode(std::string_view layout) {
  while (!layout.empty()) {
    const std::size_t end = std::min(layout.find('+'), layout.size());
    const std::string_view part = layout.substr(0, end);
    if (part == "shared") return shared_expert_mode::sum;
    if (part == "shared_gated") return shared_expert_mode::sigmoid_gated;
    if (part == "shared_averaged") return shared_expert_mode::averaged;
    layout.remove_prefix(std::min(end + 1, layout.size()));
  }
  return shared_expert_mode::none;
}

// The configuration with what the card says of the policies.
inline model_config with_policies(model_config config, const model_card& card) {
  if (card.router) config.normalised_weights = normalises(*card.router).value_or(true);
  if (card.layout) config.shared = shared_mode(card.layout->name);
  return config;
}

// The family that a model is saved as.
inline model_family family_to_save(const model_config& config, const parameter_layout& layout, const model_card& card) {
  const family_traits& traits = family_of(config);
  const bool router = !card.router || normalises(*card.router).has_value();
  const bool parameters = std::all_of(layout.tensors.begin(), layout.tensors.end(), [&](const tensor_entry& entry) {
    const auto expected = extents_from_config(entry.name, config.shape, traits);
    return expected && expected->shape == extents_of(entry);
  });
  return router && parameters ? traits.family : model_family::graft;
}

inline void check_card(const model_card& card, const model_config& config, const std::string& place) {
  const index_t experts = config.shape.experts;
  GRAFT_CHECK((card.kind == "moe") == (experts > 0), place, ": says kind ", in_quotes(card.kind),
              ", but the model has ", experts, " experts");
  GRAFT_CHECK(card.experts.empty() || static_cast<index_t>(card.experts.size()) == experts, place, ": names ",
              card.experts.size(), " experts, but the model has ", experts);
  GRAFT_CHECK(card.tokenizer.vocabulary <= config.shape.vocabulary, place, ": the tokenizer has ",
              card.tokenizer.vocabulary, " ids, but the model only ", config.shape.vocabulary, " (vocab_size)");
  const model_config said = with_policies(config, card);
  GRAFT_CHECK(said.normalised_weights == config.normalised_weights, place, ": the router ",
              card.router ? card.router->name : "", said.normalised_weights ? " gives" : " does not give",
              " weights that sum to one, but config.json says the contrary (norm_topk_prob)");
  GRAFT_CHECK(said.shared == config.shared, place, ": the layout ", card.layout ? card.layout->name : "",
              " has the shared expert ", name_of(said.shared), ", but config.json says ", name_of(config.shared));
}

// The layout was made for the model that config describes. Widths that differ among experts are in no config.json: the
// card says that they do.
inline void check_layout(const parameter_layout& layout, const transformer_shape& shape, const family_traits& traits,
                         const std::optional<model_card>& card, const std::string& place) {
  const bool own_widths = card && card->layout && card->layout->name.find("mixed_width") != std::string::npos;
  for (const tensor_entry& entry : layout.tensors) {
    if (own_widths && entry.expert >= 0 && entry.kind == role::ffn) continue;
    const auto expected = extents_from_config(entry.name, shape, traits);
    GRAFT_CHECK(!expected || expected->shape == extents_of(entry), place, ": the model's tensor ", entry.name,
                " has the shape ", shape_text(extents_of(entry)), ", config.json implies ",
                expected ? shape_text(expected->shape) + " (" + expected->keys + ")" : "");
  }
}

// A tensor of the layout and where its elements lie.
struct read_step {
  const tensor_entry* entry;
  const located_tensor* source;
  std::uint64_t first;
};

// The number of layers and experts in the names against config.json: more telling than the names that differ.
inline void check_counts(const file_layers& layers, const transformer_shape& shape,
                         const std::filesystem::path& folder) {
  const std::string place = (folder / "config.json").string();
  GRAFT_CHECK(layers.count == shape.blocks, place, ": num_hidden_layers is ", shape.blocks, ", but the tensors are of ",
              layers.count, " layers");
  for (const auto& [layer, experts] : layers.experts)
    GRAFT_CHECK(experts == shape.experts, place, ": the number of experts is ", shape.experts,
                ", but the tensors of layer ", layer, " are of ", experts, " experts");
}

inline void check_tied_head(const tensor_files& files, const located_tensor& head, load_report& report) {
  const std::string place = head.file->path().string();
  const located_tensor* embedding = files.find("model.embed_tokens.weight");
  GRAFT_CHECK(embedding != nullptr, place, ": holds lm_head.weight but no model.embed_tokens.weight");
  const auto a = head.file->bytes(*head.tensor), b = embedding->file->bytes(*embedding->tensor);
  const bool same = head.tensor->dtype == embedding->tensor->dtype && head.tensor->shape == embedding->tensor->shape &&
                    std::equal(a.begin(), a.end(), b.begin(), b.end());
  GRAFT_CHECK(
      same, place,
      ": lm_head.weight differs from model.embed_tokens.weight, but config.json says tie_word_embeddings is true");
  report.notes.push_back(place + ": lm_head.weight equals the embedding, and the head is tied to it");
}

// Finds every tensor, checks everything, reads nothing.
inline std::vector<read_step> plan_load(const tensor_files& files, const parameter_layout& layout,
                                        const transformer_shape& shape, const family_traits& traits,
                                        load_report& report) {
  const std::string place = files.folder().string();
  std::vector<std::string> names;
  for (const auto& item : files.tensors()) names.push_back(item.first);
  const file_layers layers = survey_layers(names, place);
  check_counts(layers, shape, files.folder());

  std::vector<read_step> steps;
  std::vector<std::string> missing;
  std::map<std::string, std::uint64_t, std::less<>> used;  // elements of each tensor of the files
  for (const tensor_entry& entry : layout.tensors) {
    const auto at = layers.naming.find(split_layer(entry.name).layer);
    const expert_naming naming = at == layers.naming.end() ? naming_of(traits.family) : at->second;
    const tensor_location location =
        locate(entry.name, extents_of(entry), naming, shape.experts, shared_expert_name(traits.family));
    const located_tensor* source = files.find(location.name);
    if (source == nullptr) {
      missing.push_back(location.name);
      continue;
    }
    const stored_tensor& tensor = *source->tensor;
    const auto expected = extents_from_config(entry.name, shape, traits);
    const bool fused = location.shape.size() == 3;
    const std::string keys = !expected ? ""
                                       : " (" + std::string(fused ? "number of experts, " : "") +
                                             (fused && location.name.ends_with("gate_up_proj") ? "2 * " : "") +
                                             expected->keys + " in config.json)";
    const std::string tensor_place = source->file->path().string() + ": tensor " + in_quotes(tensor.name);
    GRAFT_CHECK(tensor.shape == location.shape, tensor_place, " has the shape ", shape_text(tensor.shape),
                ", expected ", shape_text(location.shape), keys);
    GRAFT_CHECK(is_readable_weight(tensor.dtype), tensor_place, ": expected weights of F64, F32, BF16 or F16, got ",
                name_of(tensor.dtype));
    std::uint64_t& elements = used[location.name];
    elements += static_cast<std::uint64_t>(entry.size());
    GRAFT_CHECK(elements <= tensor.size(), tensor_place, " would be used twice, by ", entry.name);
    steps.push_back({&entry, source, location.first});
  }

  std::vector<std::string> left_over;
  for (const auto& [name, located] : files.tensors()) {
    const auto at = used.find(name);
    if (at != used.end() && at->second == located.tensor->size()) continue;
    if (name == "lm_head.weight" && shape.tied && layout.find(name) == nullptr) {
      check_tied_head(files, located, report);
    } else {
      left_over.push_back(name);
    }
  }
  GRAFT_CHECK(missing.empty() && left_over.empty(), place, ": ",
              missing.empty() ? "" : counted_names(missing) + (missing.size() == 1 ? " is" : " are") + " missing",
              !missing.empty() && !left_over.empty() ? ", and " : "",
              left_over.empty() ? ""
                                : counted_names(left_over) + (left_over.size() == 1 ? " is" : " are") +
                                      " left over, for which the model has no place");
  return steps;
}

}  // namespace detail

// Reads and checks config.json and graft.json of a model directory.
// Errors: no directory, one without config.json (no model, or a save that did not finish), contents that make no sense.
inline model_info load_model_info(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  GRAFT_CHECK(fs::is_directory(folder), folder.string(), ": expected a model directory, ",
              fs::exists(folder) ? "this is no folder" : "there is nothing at this path");
  GRAFT_CHECK(fs::exists(folder / "config.json"), folder.string(),
              ": expected a model directory, but it has no config.json (not a model, or a save that did not finish)");
  const nlohmann::json config = read_json_file(folder / "config.json");
  const std::string config_place = (folder / "config.json").string();
  model_info info{
      folder, parse_config(config, config_place), std::nullopt, {}, read_family(config, config_place).family};
  if (fs::exists(folder / "graft.json")) {
    info.card = read_model_card(folder / "graft.json");
    detail::check_card(*info.card, info.config, (folder / "graft.json").string());
  }
  GRAFT_CHECK(info.card || info.family != model_family::graft || info.config.shape.experts == 0, config_place,
              ": a mixture of the model_type \"graft\" is described by graft.json, and there is none beside it");
  info.tokenizer = info.card ? info.card->tokenizer : identify_tokenizer(folder, info.config.shape.vocabulary);
  return info;
}

// The card of a model; for one that graft did not write, the policies that its config.json implies.
inline model_card card_of(const model_info& info) {
  if (info.card) return *info.card;
  model_card card;
  card.tokenizer = info.tokenizer;
  if (info.config.shape.experts == 0) return card;
  card.kind = "moe";
  card.router = policy_card{info.config.normalised_weights ? "top_k" : "softmax_top_k",
                            {{"experts_per_token", info.config.experts_per_token}}};
  card.layout = policy_card{info.config.shared == shared_expert_mode::sum             ? "shared"
                            : info.config.shared == shared_expert_mode::sigmoid_gated ? "shared_gated"
                            : info.config.shared == shared_expert_mode::averaged      ? "shared_averaged"
                                                                                      : "routed",
                            nlohmann::json::object()};
  return card;
}

// Fills the arena of a model (host memory, layout.size elements) from a directory. Elements between tensors are not
// touched. T is float or double; weights stored narrower are exact, F64 rounds to nearest when read as float.
// Errors: graft::error before anything is written: tensors missing, left over, of other shapes than config.json
// says, experts stored in two ways, weights of a type that is not floating.
template <class T>
load_report load_parameters(const std::filesystem::path& folder, const parameter_layout& layout, T* arena) {
  const model_info info = load_model_info(folder);
  const family_traits& traits = traits_of(info.family);
  detail::check_layout(layout, info.config.shape, traits, info.card, (folder / "config.json").string());
  load_report report;
  const tensor_files files(folder);
  for (const detail::read_step& step : detail::plan_load(files, layout, info.config.shape, traits, report))
    step.source->read(step.first, static_cast<std::uint64_t>(step.entry->size()), arena + step.entry->offset);
  return report;
}

// Writes a model directory from an arena in host memory: weights, graft.json, tokenizer files, config.json. A model
// that was there is replaced as a whole; the directory may be one that is mapped for reading. Where the card names a
// router or a layout, they say how weights are normalised and how a shared expert is added, whatever the configuration.
//
// Errors: graft::error when shape, layout and card contradict each other and for what the disk says. Then the directory
// is as it was.
template <class T>
void save_model(const std::filesystem::path& folder, const model_config& given, const parameter_layout& layout,
                const T* arena, const model_card& card, const save_options& options = {}) {
  const std::string place = folder.string();
  const model_config config = detail::with_policies(given, card);
  const family_traits& traits = traits_of(detail::family_to_save(config, layout, card));
  const nlohmann::json config_text = config_to_json(config, options.dtype, traits.family);
  const nlohmann::json card_text = to_json(card);
  parse_model_card(card_text, place + ": graft.json");  // what cannot be read must not be written
  detail::check_card(card, config, place + ": graft.json");
  detail::check_layout(layout, config.shape, traits, card, place);

  std::vector<tensor_source> tensors;
  for (const tensor_entry& entry : layout.tensors) {
    const auto extents = detail::extents_of(entry);
    const std::string name =
        locate(entry.name, extents, naming_of(traits.family), config.shape.experts, shared_expert_name(traits.family))
            .name;
    tensors.push_back(make_tensor_source(name, extents, arena + entry.offset, options.dtype));
  }

  atomic_folder out(folder, "config.json");
  add_tensor_files(out, tensors, {{"graft", card.version}}, options.shard_bytes);
  out.add("graft.json", card_text.dump(2) + "\n");
  if (card.tokenizer.kind == "byte") {
    out.add("tokenizer.json", byte_tokenizer_json().dump(1) + "\n");
    out.add("tokenizer_config.json", byte_tokenizer_config_json(config.shape.positions).dump(2) + "\n");
  } else if (!options.tokenizer_from.empty()) {
    add_tokenizer_files(out, options.tokenizer_from);
  }
  out.add("config.json", config_text.dump(2) + "\n");
  out.commit();
}

}  // namespace graft
