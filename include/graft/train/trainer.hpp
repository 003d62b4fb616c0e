// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The training loop: micro-batches, gradient accumulation, schedule, AdamW, on one rank or several. A run is a function
// of its options, its data and the model it starts from; where it stands is one number, the step.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <graft/backend/buffer.hpp>
#include <graft/backend/communicator.hpp>
#include <graft/backend/recorded_step.hpp>
#include <graft/backend/staging.hpp>
#include <graft/core/hash.hpp>
#include <graft/core/step_value.hpp>
#include <graft/models/transformer.hpp>
#include <graft/train/adamw.hpp>
#include <graft/train/schedule.hpp>
#include <graft/train/step_block.hpp>

namespace graft {

struct training_options {
  index_t steps = 100;
  index_t sequences = 16;       // B of a step, on all ranks together
  index_t positions = 256;      // S
  index_t micro_sequences = 0;  // sequences of one pass; 0: all of a rank at once
  index_t balance_groups = 1;   // per micro-batch
  std::uint64_t seed = 0;       // of the noise that routers draw
  double learning_rate = 1e-3;
  index_t warmup_steps = 20;
  decay_form decay = decay_form::cosine;
  double final_fraction = 0.1;
  adamw_options optimizer{};
  // How the run is watched and driven, which changes no result:
  index_t report_every = 1;  // steps; the host waits for the device where a report is made, and there alone
  bool record_graph = true;  // where the backend can: record the step once and replay it (backend/recorded_step.hpp)

  index_t tokens_per_step() const { return sequences * positions; }
};

// What a step reports.
struct step_report {
  index_t step = 0;          // counted from 0
  double loss = 0;           // mean cross entropy in nats
  double auxiliary = 0;      // balancers' losses, mean over micro-batches
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  double seconds = 0;  // of a step: the mean since the last report
  index_t tokens = 0;
  index_t steps = 1;             // since the last report, this one among them
  std::vector<layer_load> load;  // of every block, over the whole step
};

// The one rank of a run that has no others.
inline constexpr self_communicator only_rank{};

// Source of batches: source.fill(step, inputs, targets) writes (sequences, positions) token ids of step `step` into two
// host matrices, a function of the step alone; a target of -1 is none, an input of -1 is padding.
//
// Ranks: each makes a trainer of an equal model with the same options and a communicator, and makes the same calls, of
// this and between steps of everything that takes much of the model's workspace: a step is recorded anew where that has
// moved, and a collective operation has to be recorded by all ranks or by none. Each fills the whole batch and trains
// on its part, so that an error in the data is every rank's. Gradients, losses and loads are sums over the ranks, and
// weights are those of rank 0 at the start, so that all ranks keep the same bits. The result is that of one rank with
// as many sequences in a pass, up to rounding. What a balancer knows of a step that is not over is its own rank's part
// of it.
template <class Model, class Communicator = self_communicator>
class trainer {
 public:
  using compute_type = typename Model::compute_type;
  using context_type = typename compute_type::context_type;
  using space = typename Model::space;
  using T = typename Model::T;
  using M = typename Model::M;

  // The model, its context and the communicator must outlive the trainer. Sets which parameters of the model have
  // gradients. With a communicator of several ranks all of them construct, since they exchange weights.
  trainer(Model& model, const training_options& options, const trainable_rule& rule = {},
          const Communicator& communicator = only_rank)
      : model_(&model),
        communicator_(&communicator),
        options_(checked(options, communicator.size())),
        optimizer_(prepared(model, rule)),
        block_(local_sequences(), options_.positions),
        staging_(block_.bytes()),
        device_block_(static_cast<index_t>(block_.bytes())),
        summary_(summary_head + model.metric_sums().extent(0)) {
    if (communicator.size() > 1) whole_batch_.resize(static_cast<std::size_t>(2 * options_.tokens_per_step()));
    GRAFT_CHECK(options_.positions <= model.shape().positions, "trainer: expected at most the ",
                model.shape().positions, " positions that the model is meant for, got ", options_.positions);
    start_hash_ = hash_of(model.parameters().master());
  }

  const training_options& options() const { return options_; }
  const Communicator& communicator() const { return *communicator_; }
  index_t next_step() const { return step_; }
  // Where the run goes on. Forgets what steps before have not reported.
  void set_next_step(index_t step) {
    step_ = step;
    unreported_ = 0;
    filled_ = none;
    fill_zero(model_->context(), summary_.view());
  }
  // A hash of the master weights that the run starts from: part of what the run is.
  std::uint64_t start_hash() const { return start_hash_; }
  bool finished() const { return step_ >= options_.steps; }
  Model& model() { return *model_; }
  adamw<compute_type>& optimizer() { return optimizer_; }
  // Whether steps are replayed from a recording by now.
  bool replays() const { return recorded_.recorded(); }

  // One optimizer step and its report. Equal for 1 x 4 and 4 x 1 micro-batches up to rounding, with balance_groups
  // scaled along. Errors: a batch that makes no sense, before anything is done; those of report().
  template <class Source>
  step_report step(Source& source) {
    advance(source);
    return report();
  }

  // The same without waiting for the device: the host may be a step ahead of it.
  // No allocation and no host synchronisation but for the first steps of a shape.
  template <class Source>
  void advance(Source& source) {
    if (unreported_ == 0) since_ = std::chrono::steady_clock::now();
    if (filled_ != step_) fill(source, step_);
    last_ = filled_batch_;
    filled_ = none;
    auto& context = model_->context();
    staging_.send(context, device_block_.view());
    recorded_.run(
        context, [&] { return options_.record_graph ? model_->recording() : recording_key(false); },
        [&] { queue_step(); });
    ++step_;
    ++unreported_;
  }

  // Fills the batch of the next step while the device works on the last one. Requires: the next advance() is given the
  // same source. A batch that makes no sense is left for advance() to find.
  template <class Source>
  void prepare(Source& source) {
    if (finished() || filled_ == step_) return;
    try {
      fill(source, step_);
    } catch (...) {
      filled_ = none;
    }
  }

  // What the last step did. Cost: waits for the device, and one copy. Requires: a step since the last report.
  // Errors: a loss or a gradient that was not finite in any step since the last report; a step with such a gradient
  // left weights and moments as they were.
  step_report report() {
    GRAFT_CHECK(unreported_ > 0, "trainer: expected a step since the last report, got none");
    const std::vector<double> summary = finite_summary();
    pass_metrics metrics = model_->metrics_of({summary.begin() + summary_head, summary.end()});
    step_report report;
    report.step = step_ - 1;
    report.loss = metrics.loss_sum / static_cast<double>(last_.targets);
    report.auxiliary = metrics.auxiliary_sum / static_cast<double>(passes() * communicator_->size());
    report.gradient_norm = summary[summary_norm];
    report.learning_rate = last_.rate;
    report.load = std::move(metrics.load);
    report.tokens = options_.tokens_per_step();
    report.steps = unreported_;
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since_).count() /
                     static_cast<double>(unreported_);
    unreported_ = 0;
    return report;
  }

  // Waits for the steps that have not reported, and throws as report() would: before weights are written.
  void check_finite() {
    if (unreported_ > 0) finite_summary();
  }

 private:
  static constexpr index_t none = -1;
  // The head of the summary: the norm of the gradient; 1 + the first step that was not finite, 0 for none, and its loss
  // and its norm. Behind it the sums of the model.
  static constexpr index_t summary_norm = 0, summary_failed = 1, summary_head = 4;

  // What the host knows of a batch.
  struct batch_facts {
    index_t targets = 0;
    double rate = 0;
  };

  // Piece by piece: a large model's weights need not fit in the host's memory a second time.
  template <class Values>
  std::uint64_t hash_of(const Values& values) const {
    constexpr index_t piece = index_t{1} << 22;
    std::vector<M> host(static_cast<std::size_t>(std::min(piece, values.extent(0))));
    std::uint64_t hash = fnv1a_start;
    for (index_t first = 0; first < values.extent(0); first += piece) {
      const auto some = values.rows(first, std::min(first + piece, values.extent(0)));
      copy_to_host(model_->context(), host.data(), some);
      hash = hash_memory(host.data(), static_cast<std::size_t>(some.extent(0)) * sizeof(M), hash);
    }
    return hash;
  }
  static training_options checked(training_options options, index_t ranks) {
    GRAFT_CHECK(options.steps >= 0 && options.sequences > 0 && options.positions > 0,
                "trainer: expected steps >= 0, sequences > 0, positions > 0, got steps=", options.steps,
                ", sequences=", options.sequences, ", positions=", options.positions);
    GRAFT_CHECK(options.sequences % ranks == 0, "trainer: expected ranks to divide sequences, got ranks=", ranks,
                ", sequences=", options.sequences);
    const index_t local = options.sequences / ranks;
    if (options.micro_sequences == 0) options.micro_sequences = local;
    GRAFT_CHECK(options.micro_sequences > 0 && local % options.micro_sequences == 0,
                "trainer: expected micro_sequences to divide sequences, got micro_sequences=", options.micro_sequences,
                ", sequences=", local);
    GRAFT_CHECK(options.learning_rate >= 0 && std::isfinite(options.learning_rate) && options.warmup_steps >= 0,
                "trainer: expected learning_rate and warmup_steps of at least 0, got learning_rate=",
                options.learning_rate, ", warmup_steps=", options.warmup_steps);
    GRAFT_CHECK(options.final_fraction >= 0 && options.final_fraction <= 1,
                "trainer: expected final_fraction from 0 to 1, got ", options.final_fraction);
    GRAFT_CHECK(options.report_every > 0, "trainer: expected report_every above 0, got ", options.report_every);
    return options;
  }
  adamw<compute_type> prepared(Model& model, const trainable_rule& rule) const {
    model.parameters().set_trainable(rule);
    communicator_->broadcast(model.context(), model.parameters().master(), 0);
    model.parameters().refresh(model.context());
    return adamw<compute_type>(model.context(), model.layout(), model.parameters().trainable(), options_.optimizer);
  }
  index_t local_sequences() const { return options_.sequences / communicator_->size(); }
  index_t passes() const { return local_sequences() / options_.micro_sequences; }
  index_t first_sequence() const { return communicator_->rank() * local_sequences(); }

  // Makes the batch of a step in the staging block, with the numbers that go along.
  template <class Source>
  void fill(Source& source, index_t step) {
    filled_ = none;
    std::byte* bytes = staging_.block();
    const auto inputs = block_.inputs(bytes), targets = block_.targets(bytes);
    if (communicator_->size() == 1) {
      source.fill(step, inputs, targets);
      filled_batch_.targets = count_targets(inputs, targets, step);
    } else {
      const matrix_view<std::int32_t> all_inputs(whole_batch_.data(), options_.sequences, options_.positions),
          all_targets(whole_batch_.data() + options_.tokens_per_step(), options_.sequences, options_.positions);
      source.fill(step, all_inputs, all_targets);
      filled_batch_.targets = count_targets(all_inputs, all_targets, step);
      const auto size = static_cast<std::size_t>(inputs.size()) * sizeof(std::int32_t);
      std::memcpy(inputs.data, all_inputs.row(first_sequence()), size);
      std::memcpy(targets.data, all_targets.row(first_sequence()), size);
    }
    filled_batch_.rate = learning_rate(
        {options_.learning_rate, options_.warmup_steps, options_.steps, options_.decay, options_.final_fraction}, step);
    *block_.numbers(bytes) = {step, 1.0 / static_cast<double>(filled_batch_.targets), filled_batch_.rate};
    filled_ = step;
  }

  index_t count_targets(const matrix_view<std::int32_t>& inputs, const matrix_view<std::int32_t>& targets,
                        index_t step) const {
    index_t count = 0;
    for (index_t i = 0; i < targets.size(); ++i) {
      const bool padding = inputs.data[i] == -1 && targets.data[i] < 0;
      GRAFT_CHECK((padding || inputs.data[i] >= 0) && inputs.data[i] < model_->shape().vocabulary &&
                      targets.data[i] < model_->shape().vocabulary,
                  "trainer: token ids must be below the vocabulary of ", model_->shape().vocabulary, ", got input ",
                  inputs.data[i], " and target ", targets.data[i], " in step ", step);
      count += targets.data[i] >= 0 ? 1 : 0;
    }
    GRAFT_CHECK(count > 0, "trainer: the batch of step ", step, " has no target");
    return count;
  }

  // All work of a step once its batch is on the device. It is the same in every step: what changes is read from the
  // block, since a recording of it is what runs.
  void queue_step() {
    auto& context = model_->context();
    auto& parameters = model_->parameters();
    const view<const std::int32_t, 2, space> inputs = block_.template inputs<space>(device_block_.data()),
                                             targets = block_.template targets<space>(device_block_.data());
    const step_numbers* numbers = block_.numbers(device_block_.data());
    const auto step = step_value<index_t>::at(&numbers->step);
    const auto token_scale = step_value<double>::at(&numbers->token_scale);
    const index_t micro = options_.micro_sequences;

    model_->clear_metrics();
    for (index_t pass = 0; pass < passes(); ++pass)
      model_->forward_backward(inputs.rows(pass * micro, (pass + 1) * micro),
                               targets.rows(pass * micro, (pass + 1) * micro),
                               {.token_scale = token_scale,
                                .auxiliary_scale = 1.0 / static_cast<double>(passes() * communicator_->size()),
                                .balance_groups = options_.balance_groups,
                                .at = {.seed = options_.seed,
                                       .step = step,
                                       .first_token = (first_sequence() + pass * micro) * options_.positions,
                                       .training = true}});
    communicator_->all_reduce_sum(context, parameters.gradients());
    communicator_->all_reduce_sum(context, model_->metric_sums());
    optimizer_.update(context, parameters.master(), parameters.narrow(), parameters.gradients(),
                      step_value<double>::at(&numbers->rate), step);
    model_->end_step();
    launch_elements(
        context, summary_.size() - summary_head + 1,
        detail::step_summary_element<M, space>{summary_.view(), model_->metric_sums(), optimizer_.gradient_norm(), step,
                                               token_scale, summary_head});
  }

  // The summary, once the device has made it. The one place where a run waits for the device.
  std::vector<double> finite_summary() {
    std::vector<double> summary(static_cast<std::size_t>(summary_.size()));
    copy_to_host(model_->context(), summary.data(), summary_.view());
    if (summary[summary_failed] > 0) {
      step_ = static_cast<index_t>(summary[summary_failed]) - 1;
      filled_ = none;
      detail::raise("trainer: step ", step_, " gave a loss of ", summary[2], " and a gradient norm of ", summary[3],
                    ": training diverged, lower the learning rate");
    }
    return summary;
  }

  Model* model_;
  const Communicator* communicator_;
  training_options options_;
  adamw<compute_type> optimizer_;
  index_t step_ = 0, unreported_ = 0;
  std::uint64_t start_hash_ = 0;
  std::chrono::steady_clock::time_point since_{};
  batch_facts filled_batch_, last_;
  index_t filled_ = none;  // the step whose batch the staging block holds
  step_block block_;
  staging<context_type> staging_;
  std::vector<std::int32_t> whole_batch_;  // inputs and targets of all ranks
  buffer<std::byte, space> device_block_;
  buffer<double, space> summary_;
  recorded_step<context_type> recorded_;
};

}  // namespace graft
