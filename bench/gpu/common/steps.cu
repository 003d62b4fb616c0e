// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Training steps: batch to the device, forward, backward, AdamW, report. Recorded as a CUDA graph and replayed, and
// for comparison launched one by one. Times are the host's, over steps that follow each other as in training.

#include <chrono>

#include <graft/backend/cuda/cuda.cuh>
#include <graft/models/counts.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/expert_layout/routed.hpp>
#include <graft/policies/router/softmax_top_k.hpp>
#include <graft/train/trainer.hpp>

#include "common/measure.cuh"
#include "shapes.hpp"

namespace bench {
namespace {

using dense_model = graft::dense_transformer<numbers>;
using olmoe_model = graft::moe_transformer<graft::softmax_top_k<8>, graft::switch_loss, graft::routed, numbers>;

// Tokens that are random but have something to learn: the next one is the token plus one.
struct random_tokens {
  index_t vocabulary;
  void fill(index_t step, graft::matrix_view<std::int32_t> inputs, graft::matrix_view<std::int32_t> targets) const {
    const graft::random_source random{1, graft::random_stream::data};
    for (index_t i = 0; i < inputs.size(); ++i) {
      const auto token = static_cast<index_t>(random.below(
          static_cast<std::uint64_t>(vocabulary), static_cast<std::uint64_t>(step), static_cast<std::uint64_t>(i)));
      inputs.data[i] = static_cast<std::int32_t>(token);
      targets.data[i] = static_cast<std::int32_t>((token + 1) % vocabulary);
    }
  }
};

graft::transformer_shape shape_of(const step_case& c) {
  const bool olmoe = std::string(c.model) == "olmoe";
  return {.vocabulary = c.vocabulary,
          .width = c.width,
          .blocks = c.blocks,
          .heads = c.heads,
          .kv_heads = c.heads,
          .head_dim = c.width / c.heads,
          .hidden = c.hidden,
          .positions = c.positions,
          .tied = !olmoe,
          .qk_norm = olmoe,
          .experts = c.experts};
}

// Drawn on the device: the declared initialisation runs on the host and takes a minute at this size.
template <class Model>
void initialize(device_context& context, Model& model) {
  const auto master = model.parameters().master();
  fill_random(context, master, 1, 0.02);
  const std::vector<float> ones(static_cast<std::size_t>(model.shape().width), 1.0f);
  for (const graft::tensor_entry& entry : model.layout().tensors)
    if (entry.columns == 0)
      copy_from_host(context, master.rows(entry.offset, entry.offset + entry.size()), ones.data());
}

// One pass holds half of the sequences where the card's memory is below 100 GiB and the model is a large one.
index_t micro_sequences(const step_case& c) {
  std::size_t available = 0, total = 0;
  GRAFT_CUDA(cudaMemGetInfo(&available, &total));
  return c.experts > 0 && c.sequences > 1 && total >> 30 < 100 ? c.sequences / 2 : c.sequences;
}

template <class Model>
void report_model(const report_options& options, const step_case& c, bool record_graph) {
  device_context context;
  const graft::transformer_shape shape = shape_of(c);
  Model model(context, shape);
  initialize(context, model);
  graft::training_options training;
  training.steps = 1000;
  training.warmup_steps = 1;
  training.sequences = c.sequences;
  training.positions = c.positions;
  training.micro_sequences = micro_sequences(c);
  training.learning_rate = 3e-4;
  training.record_graph = record_graph;
  graft::trainer<Model> trainer(model, training);
  random_tokens source{shape.vocabulary};

  const double first_loss = trainer.step(source).loss;
  trainer.step(source);  // recorded by now
  const auto start = std::chrono::steady_clock::now();
  trainer.step(source);
  const double estimate = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const int count = options.small ? 2 : std::clamp(static_cast<int>(2 / estimate), 5, 40);
  const auto requests = context.workspace().requests();
  std::vector<double> seconds;
  double loss = 0;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < count; ++i) {
      trainer.advance(source);
      trainer.prepare(source);
    }
    const graft::step_report report = trainer.report();
    seconds.push_back(report.seconds);
    loss = report.loss;
  }
  const double ms = 1e3 * median(seconds), tokens = static_cast<double>(training.tokens_per_step());
  const double flops = tokens * graft::flops_per_token(shape, shape.positions, model.mixture()).train;
  // The convention that counts the masked half of attention too.
  const double masked = 6.0 * tokens * static_cast<double>(c.blocks * c.width * c.positions);
  const double parameters = static_cast<double>(model.layout().parameter_count());
  const double floor = 1e3 * step_floor_seconds(flops, parameters, options.card);
  print_line(json_object()
                 .add("part", "steps")
                 .add("name", std::string(c.model) + (record_graph ? " step" : " step without a graph"))
                 .add("shape", c.json())
                 .add("who", "graft")
                 .add("ms", ms)
                 .add("floor_ms", floor)
                 .add("score", floor / ms)
                 .add("tokens_per_second", tokens / ms * 1e3)
                 .add("tflops", flops / ms * 1e-9)
                 .add("tflops_with_masked_half", (flops + masked) / ms * 1e-9)
                 .add("parameters", parameters)
                 .add("micro_sequences", training.micro_sequences)
                 .add("replayed", trainer.replays())
                 .add("workspace_gb", static_cast<double>(context.workspace().peak_bytes()) * 1e-9)
                 .add("first_loss", first_loss)
                 .add("loss", loss)
                 .add("log_vocabulary", std::log(static_cast<double>(c.vocabulary)))
                 .add("allocated_after_warm_up", context.workspace().requests() != requests));
}

}  // namespace

void report_steps(const report_options& options) {
  for (const step_case& c : step_cases(options.small)) {
    if (std::string(c.model) == "dense") {
      attempt("steps", c.json(), [&] { report_model<dense_model>(options, c, true); });
      attempt("steps", c.json(), [&] { report_model<dense_model>(options, c, false); });
    } else {
      attempt("steps", c.json(), [&] { report_model<olmoe_model>(options, c, true); });
    }
  }
}

}  // namespace bench
