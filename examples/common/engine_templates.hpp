// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The engine for one backend and precision: loads a directory into the model type that its config.json and graft.json
// name.

#include <optional>
#include <string>
#include <utility>

#include <graft/io/byte_tokenizer.hpp>
#include <graft/io/model_directory.hpp>
#include <graft/models/counts.hpp>
#include <graft/train/run.hpp>

#include "common/characters.hpp"
#include "common/engine.hpp"
#include "common/folder.hpp"
#include "common/mixtures.hpp"

namespace examples {

template <class Compute>
class backend_engine final : public engine {
 public:
  using context_type = typename Compute::context_type;
  using moe_transformer = graft::transformer<graft::any_mixture<Compute>, Compute>;

  explicit backend_engine(const graft::context_options& options) : context_(options) {}

  std::string device() const override { return Compute::backend::name; }
  std::string precision() const override { return Compute::precision::name; }

  nlohmann::json train(const training_job& job, const observe_step& observe) override {
    nlohmann::json provenance;
    with_model(job.start ? graft::load_model_info(*job.start) : new_model(job.shape), job.mixture,
               [&](auto& model, const graft::model_info& info) {
                 if (job.start)
                   load(model, *job.start);
                 else
                   model.initialize(job.seed);
                 provenance = train_model(model, info, job, observe);
               });
    return provenance;
  }

  std::vector<graft::evaluation> evaluate(const evaluation_job& job) override {
    std::vector<graft::evaluation> results;
    with_model(graft::load_model_info(job.model), {}, [&](auto& model, const graft::model_info& info) {
      require_bytes(info);
      load(model, job.model);
      for (const held_out_domain& domain : job.domains) {
        graft::evaluation_windows windows(graft::token_file(domain.path, model.shape().vocabulary), job.positions,
                                          job.max_tokens);
        const index_t rows = std::max<index_t>(1, 4096 / job.positions);
        results.push_back(graft::evaluate(model, windows, rows));
      }
    });
    return results;
  }

  std::string generate(const fs::path& folder, const std::string& prompt, const graft::generation_options& options,
                       const std::function<void(const std::string&)>& emit) override {
    std::string text;
    with_model(graft::load_model_info(folder), {}, [&](auto& model, const graft::model_info& info) {
      require_bytes(info);
      load(model, folder);
      // A text starts after the end of another, as in training.
      std::vector<std::int32_t> tokens{graft::byte_tokenizer::end_of_text()};
      graft::byte_tokenizer::encode(prompt, tokens);
      graft::generation_options limited = options;
      limited.ids = graft::byte_tokenizer::ids();
      limited.end_token = graft::byte_tokenizer::end_of_text();
      character_stream characters;
      graft::generate(model, tokens, limited, [&](std::int32_t token) {
        const std::string piece = characters.take(graft::byte_tokenizer::decode({&token, 1}));
        text += piece;
        if (emit && !piece.empty()) emit(piece);
      });
    });
    return text;
  }

 private:
  // Held-out text and prompts are bytes.
  static void require_bytes(const graft::model_info& info) {
    GRAFT_CHECK(info.tokenizer.kind == "byte", info.folder.string(),
                ": expected a model of the byte tokenizer, got one of the tokenizer ", info.tokenizer.kind);
  }

  static graft::model_info new_model(const graft::transformer_shape& shape) {
    graft::model_info info;
    info.config.shape = shape;
    info.config.end_of_text = graft::byte_tokenizer::end_of_text();
    info.card.emplace();
    info.tokenizer = info.card->tokenizer;
    return info;
  }

  // Calls use(model, info) with a model of the type that the directory names.
  template <class Use>
  void with_model(graft::model_info info, const mixture_choice& choice, Use use) {
    if (info.config.shape.experts == 0) {
      graft::dense_transformer<Compute> model(context_, info.config.shape);
      use(model, info);
      return;
    }
    try {
      const graft::model_card card = graft::card_of(info);
      const mixture_names names = names_of(&card, choice, info.config.shape.experts, info.config.experts_per_token);
      moe_transformer model(context_, info.config.shape, make_mixture<Compute>(names));
      if (!info.card) info.card.emplace();
      write_names(names, model.mixture().options(), *info.card);
      use(model, info);
    } catch (const graft::error& problem) {
      graft::detail::raise(info.folder.string(), ": ", problem.what());
    }
  }

  template <class Model>
  void load(Model& model, const fs::path& folder) {
    std::vector<typename Model::M> values(static_cast<std::size_t>(model.layout().size));
    graft::load_parameters(folder, model.layout(), values.data());
    copy_from_host(context_, model.parameters().master(), values.data());
    model.parameters().refresh(context_);
  }

  template <class Model>
  nlohmann::json train_model(Model& model, const graft::model_info& info, const training_job& job,
                             const observe_step& observe) {
    graft::domain_batches data(job.data, job.seed, model.shape().vocabulary);
    graft::trainer<Model> run(model, job.training, graft::trainable_after_mix(job.trained));
    const std::string signature_text = graft::run_signature(run, data.description());
    const std::string signature = fingerprint(signature_text);
    // Also what a killed process may have left: after the model is written, before this is done.
    const auto remove_checkpoint = [&] {
      for (const char* name : {"checkpoint.safetensors", ".checkpoint.safetensors.partial"})
        fs::remove(job.out / "training" / name);
    };
    const auto finished = [&]() -> std::optional<nlohmann::json> {
      if (!fs::exists(job.out / "config.json")) return std::nullopt;
      const graft::model_info found = graft::load_model_info(job.out);
      const std::string other = origin_value(found, "signature", std::string("unknown"));
      GRAFT_CHECK(other == signature, job.out.string(), ": holds the model of another run (",
                  graft::first_difference(origin_value(found, "run", std::string("unknown")), signature_text),
                  "): remove it or choose another place");
      remove_checkpoint();
      return found.card->provenance;
    };
    if (const auto found = finished()) return *found;
    const folder_lock lock(job.out / "training");
    if (const auto found = finished()) return *found;  // by a process that had the lock a moment ago

    const graft::run_result result =
        graft::run_training(run, data, {job.out / "training", job.checkpoint_seconds}, observe);
    const index_t tokens = job.training.steps * job.training.tokens_per_step();
    nlohmann::json provenance = {
        {"method", job.method},
        {"signature", signature},
        {"run", signature_text},
        {"seed", job.seed},
        {"precision", Compute::precision::name},
        {"device", Compute::backend::name},
        {"parents", job.start ? nlohmann::json::array({folder_name(*job.start)}) : nlohmann::json::array()},
        {"train_tokens", origin_value(info, "train_tokens", index_t{0}) + tokens},
        {"last_train_tokens", tokens},
        {"critical_path_tokens", origin_value(info, "critical_path_tokens", index_t{0}) + tokens},
        {"trained_parameters", model.parameters().trained_parameter_count()},
        {"total_parameters", model.layout().parameter_count()},
        {"active_parameters", graft::active_parameter_count(model.shape(), model.mixture())},
        {"seconds", result.seconds},
        {"tokens_per_second", result.seconds > 0
                                  ? static_cast<double>(result.steps * job.training.tokens_per_step()) / result.seconds
                                  : 0.0}};
    if (job.data.size() == 1) provenance["domain"] = job.data.front().name;
    graft::model_card card = info.card.value_or(graft::model_card{});
    card.provenance = provenance;
    card.tokenizer = info.tokenizer;
    graft::save_options save;
    if (job.start) save.tokenizer_from = *job.start;
    std::vector<typename Model::M> values(static_cast<std::size_t>(model.layout().size));
    copy_to_host(context_, values.data(), model.parameters().master());
    graft::save_model(job.out, info.config, model.layout(), values.data(), card, save);
    remove_checkpoint();
    return provenance;
  }

  context_type context_;
};

}  // namespace examples
