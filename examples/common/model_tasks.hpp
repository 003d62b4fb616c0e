// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the engines do with a model that is in memory, whatever its type: train it, evaluate it, let it write. One
// model type is one instantiation of each.

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <graft/io/byte_tokenizer.hpp>
#include <graft/train/run.hpp>

#include "common/characters.hpp"
#include "common/engine.hpp"
#include "common/folder.hpp"
#include "common/peak_memory.hpp"
#include "common/ranks.hpp"
#include "common/traces.hpp"

namespace examples {

// Held-out text and prompts are bytes.
inline void require_bytes(const graft::tokenizer_card& tokenizer, const fs::path& folder) {
  GRAFT_CHECK(tokenizer.kind == "byte", folder.string(), ": expected a model of the byte tokenizer, got one of the ",
              "tokenizer ", tokenizer.kind);
}

// Parameters from host memory.
template <class Model>
void set_parameters(Model& model, const std::vector<typename Model::M>& values) {
  copy_from_host(model.context(), model.parameters().master(), values.data());
  model.parameters().refresh(model.context());
}
template <class Model>
std::vector<typename Model::M> get_parameters(Model& model) {
  std::vector<typename Model::M> values(static_cast<std::size_t>(model.layout().size));
  copy_to_host(model.context(), values.data(), model.parameters().master());
  return values;
}

template <class Model>
std::vector<graft::evaluation> evaluate_model(Model& model, const evaluation_job& job) {
  std::vector<graft::evaluation> results;
  for (const held_out_domain& domain : job.domains) {
    graft::evaluation_windows windows(graft::token_file(domain.path, model.shape().vocabulary), job.positions,
                                      job.max_tokens);
    results.push_back(graft::evaluate(model, windows, std::max<index_t>(1, 4096 / job.positions)));
  }
  return results;
}

template <class Model>
std::string generate_text(Model& model, const std::string& prompt, const graft::generation_options& options,
                          const std::function<void(const std::string&)>& emit) {
  // A text starts after the end of another, as in training.
  std::vector<std::int32_t> tokens{graft::byte_tokenizer::end_of_text()};
  graft::byte_tokenizer::encode(prompt, tokens);
  graft::generation_options limited = options;
  limited.ids = graft::byte_tokenizer::ids();
  limited.end_token = graft::byte_tokenizer::end_of_text();
  character_stream characters;
  std::string text;
  graft::generate(model, tokens, limited, [&](std::int32_t token) {
    const std::string piece = characters.take(graft::byte_tokenizer::decode({&token, 1}));
    text += piece;
    if (emit && !piece.empty()) emit(piece);
  });
  return text;
}

// Batches of a run whose model rests on more than its own parameters: the members of an assembly are part of what the
// run is.
class described_batches {
 public:
  described_batches(const training_job& job, index_t vocabulary, const std::string& more)
      : batches_(job.data, job.seed, vocabulary), description_(batches_.description() + more) {}
  void fill(index_t step, graft::matrix_view<std::int32_t> inputs, graft::matrix_view<std::int32_t> targets) {
    batches_.fill(step, inputs, targets);
  }
  const std::string& description() const { return description_; }

 private:
  graft::domain_batches batches_;
  std::string description_;
};

// What training must know of a model beside the model.
struct training_start {
  nlohmann::json origin = nlohmann::json::object();  // of what the run starts from
  fs::path folder;                                   // which is here
  index_t total = 0, active = 0;                     // parameters, those of members too
  std::string members;                               // of an assembly: names and signatures
};

// Trains to the end, or finds the result, or continues from a checkpoint. save(values, provenance) writes job.out;
// after(report) sees every step. Returns the provenance. Errors: job.out holds the model of another run.
// Ranks: all train; rank 0 alone writes and observes.
template <class Model, class Save>
nlohmann::json train_model(Model& model, const training_start& start, const training_job& job,
                           const graft::trainable_rule& rule, const observe_step& observe, const Save& save) {
  using Compute = typename Model::compute_type;
  described_batches data(job, model.shape().vocabulary, start.members);
  rank_world& ranks = rank_world::current();
  const auto& exchange = ranks.exchange<typename Compute::backend>();
  graft::trainer<Model, std::remove_cvref_t<decltype(exchange)>> run(model, job.training, rule, exchange);
  const std::string signature_text = graft::run_signature(run, data.description());
  const std::string signature = fingerprint(signature_text);
  // Also what a killed process may have left: after the model is written, before this is done.
  const auto remove_checkpoint = [&] {
    for (const char* name : {"checkpoint.safetensors", ".checkpoint.safetensors.partial"})
      fs::remove(job.out / "training" / name);
  };
  const auto finished = [&]() -> std::optional<nlohmann::json> {
    if (!holds_model(job.out)) return std::nullopt;
    const nlohmann::json found = origin_of(job.out);
    const std::string other = origin_value(found, job.out, "signature", std::string("unknown"));
    GRAFT_CHECK(other == signature, job.out.string(), ": holds the model of another run (",
                graft::first_difference(origin_value(found, job.out, "run", std::string("unknown")), signature_text),
                "): remove it or choose another place");
    remove_checkpoint();
    return found;
  };
  std::optional<folder_lock> lock;
  bool done = ranks.leads() && finished();
  if (ranks.leads() && !done) {
    lock.emplace(job.out / "training");
    done = finished().has_value();  // by a process that had the lock a moment ago
  }
  if (ranks.shared(done)) return origin_of(job.out);
  const bool resumes = fs::exists(job.out / "training" / "checkpoint.safetensors");
  GRAFT_CHECK(ranks.shared(resumes) == resumes, job.out.string(), ": expected the same folder on every rank, got ",
              resumes ? "a checkpoint here and none" : "no checkpoint here and one", " on rank 0");

  const peak_memory peak;
  const graft::run_result result =
      graft::run_training(run, data, {job.out / "training", job.checkpoint_seconds},
                          ranks.leads() ? with_snapshots(model, job, observe) : observe_step());
  const index_t tokens = job.training.steps * job.training.tokens_per_step();
  nlohmann::json provenance = {
      {"method", job.method},
      {"signature", signature},
      {"run", signature_text},
      {"seed", job.seed},
      {"precision", Compute::precision::name},
      {"device", Compute::backend::name},
      {"parents", job.start ? nlohmann::json::array({folder_name(*job.start)}) : nlohmann::json::array()},
      {"train_tokens", origin_value(start.origin, start.folder, "train_tokens", index_t{0}) + tokens},
      {"last_train_tokens", tokens},
      {"critical_path_tokens", origin_value(start.origin, start.folder, "critical_path_tokens", index_t{0}) + tokens},
      {"trained_parameters", model.parameters().trained_parameter_count()},
      {"total_parameters", start.total},
      {"active_parameters", start.active},
      {"peak_memory_bytes", peak.bytes()},
      {"seconds", result.seconds},
      {"tokens_per_second",
       result.seconds > 0 ? static_cast<double>(result.steps * job.training.tokens_per_step()) / result.seconds : 0.0}};
  if (job.data.size() == 1) provenance["domain"] = job.data.front().name;
  const auto values = get_parameters(model);
  if (ranks.size() > 1) {
    const std::uint64_t own = graft::hash_memory(values.data(), values.size() * sizeof(values[0]));
    GRAFT_CHECK(ranks.shared(own) == own, job.out.string(), ": expected the weights of rank 0 on every rank after ",
                "training, got others");
    ranks.barrier();  // before anything is written
  }
  if (ranks.leads()) {
    save(values, provenance);
    remove_checkpoint();
  }
  ranks.barrier();
  return provenance;
}

}  // namespace examples
