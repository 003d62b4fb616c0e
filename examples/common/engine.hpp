// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the programs do with models, whatever the device and precision: train, evaluate, generate, from folder to
// folder. A folder holds a model or an assembly of models (graft/io/assembly.hpp). The templates behind it are compiled
// once for each backend and precision (engine_cpu_bf16.cpp and its kin; most of what they share is parsed once).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/analysis/evaluate.hpp>
#include <graft/analysis/gate_trace.hpp>
#include <graft/core/transformer_shape.hpp>
#include <graft/io/assembly.hpp>
#include <graft/mix/trainable.hpp>
#include <graft/models/generation.hpp>
#include <graft/train/domain_batches.hpp>
#include <graft/train/trainer.hpp>

#include "common/mixture_choice.hpp"

namespace examples {

using graft::index_t;
namespace fs = std::filesystem;

struct held_out_domain {
  std::string name;
  fs::path path;  // token file
};

// The routing of one text at some steps of a training, for saturation. No texts: nothing is kept.
struct snapshot_options {
  std::vector<held_out_domain> texts;  // an excerpt of each
  index_t tokens = 256;                // of each
  index_t positions = 256;
  index_t count = 8;  // about so many, and one before the first step
};

struct training_job {
  std::string label;                             // for the progress bar: "seed"
  fs::path out;                                  // folder to write; out/training holds checkpoint and metrics
  std::optional<fs::path> start;                 // folder to start from
  graft::transformer_shape shape{};              // of a new model, without start
  std::optional<graft::assembly_card> assembly;  // a new one, without start; its provenance says what members have seen
  std::uint64_t seed = 0;                        // of initial weights and data order
  std::vector<graft::weighted_tokens> data;
  graft::training_options training{};
  graft::mix_training trained = graft::mix_training::all;
  mixture_choice mixture{};  // of a model with experts
  std::string method;        // "seed", "expert", "btx": into graft.json
  double checkpoint_seconds = 30;
  snapshot_options snapshots{};
};

struct evaluation_job {
  fs::path model;
  std::vector<held_out_domain> domains;
  index_t positions = 256;
  index_t max_tokens = 65536;  // per domain
};

struct evaluation_result {
  std::vector<graft::evaluation> domains;
  index_t peak_bytes = 0;  // of resident memory (common/peak_memory.hpp)
};

using observe_step = std::function<void(const graft::step_report&)>;

class engine {
 public:
  virtual ~engine() = default;
  virtual std::string device() const = 0;     // "cpu", "cuda"
  virtual std::string precision() const = 0;  // "bf16"

  // Trains job.out, or finds it finished, or continues it from its checkpoint. Returns what graft.json says of the
  // model's origin. What is trained of an assembly are its own parameters. Errors: job.out holds the model of another
  // run.
  virtual nlohmann::json train(const training_job& job, const observe_step& observe) = 0;
  // The prior of a forest's members from a text (graft/train/fit_prior.hpp). Requires: kind "forest".
  virtual std::vector<double> prior(const graft::assembly_card& card, const fs::path& tokens, index_t positions) = 0;
  virtual evaluation_result evaluate(const evaluation_job& job) = 0;
  // Returns the continuation of a prompt; `emit` sees it piece by piece.
  virtual std::string generate(const fs::path& model, const std::string& prompt,
                               const graft::generation_options& options,
                               const std::function<void(const std::string&)>& emit) = 0;
  // Which experts the tokens of a text go to, cut into sequences of `positions`; no blocks for a model without experts.
  virtual graft::routing_trace routing(const fs::path& model, const std::vector<std::int32_t>& ids,
                                       index_t positions) = 0;
  // How much say each member of an assembly has at every token of a text.
  virtual graft::gate_trace gates(const fs::path& assembly, const std::vector<std::int32_t>& ids) = 0;
  // Errors: a mixture that the programs are not compiled for on this device in this precision.
  virtual void check_mixture(const mixture_names& names) const = 0;
  // Gives back what is kept from stage to stage: before other processes want the device.
  virtual void release() = 0;
};

struct engine_options {
  std::string device = "auto";     // auto, cpu, cuda, cuda:N; each of several ranks takes the device of its number
  std::string precision = "bf16";  // fp32, bf16
  int threads = 0;
};

// Errors: an unknown device or precision; --device cuda where there is none.
std::unique_ptr<engine> make_engine(const engine_options& options);

// How many devices a device name without a number leaves open: those that are here, of auto and cuda.
int device_count(const std::string& device);

// A short hexadecimal fingerprint of a text.
std::string fingerprint(const std::string& text);

}  // namespace examples
