// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The engine for one backend and precision: looks at what a folder holds and has the work done for that kind of model.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/assemblies_templates.hpp"
#include "common/model_work.hpp"

namespace examples {

template <class Compute>
class backend_engine final : public engine {
 public:
  using context_type = typename Compute::context_type;
  using assemblies = assembly_work<Compute>;

  explicit backend_engine(const graft::context_options& options) : options_(options) { new_context(); }

  std::string device() const override { return Compute::backend::name; }
  std::string precision() const override { return Compute::precision::name; }

  nlohmann::json train(const training_job& job, const observe_step& observe) override {
    new_context();
    if (job.assembly || (job.start && graft::is_assembly(*job.start)))
      return assemblies::train(*context_, job, observe);
    const graft::model_info info = job.start ? graft::load_model_info(*job.start) : new_model(job.shape);
    return with_kind(info, [&](auto work) { return decltype(work)::train(*context_, info, job, observe); });
  }

  std::vector<double> prior(const graft::assembly_card& card, const fs::path& tokens, index_t positions) override {
    new_context();
    return assemblies::prior(*context_, card, tokens, positions);
  }

  evaluation_result evaluate(const evaluation_job& job) override {
    new_context();
    const peak_memory peak;
    evaluation_result result;
    if (graft::is_assembly(job.model)) {
      result.domains = assemblies::evaluate(*context_, job);
    } else {
      const graft::model_info info = graft::load_model_info(job.model);
      result.domains = with_kind(info, [&](auto work) { return decltype(work)::evaluate(*context_, info, job); });
    }
    result.peak_bytes = peak.bytes();
    return result;
  }

  std::string generate(const fs::path& folder, const std::string& prompt, const graft::generation_options& options,
                       const std::function<void(const std::string&)>& emit) override {
    if (graft::is_assembly(folder)) return assemblies::generate(context(), folder, prompt, options, emit);
    const graft::model_info info = graft::load_model_info(folder);
    return with_kind(info, [&](auto work) { return decltype(work)::generate(context(), info, prompt, options, emit); });
  }

  graft::routing_trace routing(const fs::path& folder, const std::vector<std::int32_t>& ids,
                               index_t positions) override {
    const graft::model_info info = graft::load_model_info(folder);
    return with_kind(info, [&](auto work) { return decltype(work)::routing(context(), info, ids, positions); });
  }

  void check_mixture(const mixture_names& names) const override { make_mixture<Compute>(names); }
  void release() override { context_.reset(); }

  graft::gate_trace gates(const fs::path& assembly, const std::vector<std::int32_t>& ids) override {
    return assemblies::gates(context(), assembly, ids);
  }

 private:
  context_type& context() {
    if (!context_) new_context();
    return *context_;
  }
  // Workspace is kept from pass to pass; a stage does not inherit that of the one before.
  void new_context() {
    context_.reset();
    context_ = std::make_unique<context_type>(options_);
  }

  static graft::model_info new_model(const graft::transformer_shape& shape) {
    graft::model_info info;
    info.config.shape = shape;
    info.config.end_of_text = graft::byte_tokenizer::end_of_text();
    info.card.emplace();
    info.tokenizer = info.card->tokenizer;
    return info;
  }

  // Calls use(model_work<...>()) with the kind of model that a directory holds.
  template <class Use>
  static auto with_kind(const graft::model_info& info, Use use) {
    if (info.config.shape.experts == 0) {
      GRAFT_CHECK(!info.card || !info.card->attention, info.folder.string(),
                  ": these programs are compiled for attention experts beside experts of feed-forward layers, this "
                  "model has the latter dense");
      return use(model_work<Compute, graft::no_mixture>());
    }
    if (info.card && info.card->attention) return use(model_work<Compute, attention_mixture<Compute>>());
    return use(model_work<Compute, graft::any_mixture<Compute>>());
  }

  graft::context_options options_;
  std::unique_ptr<context_type> context_;
};

}  // namespace examples
