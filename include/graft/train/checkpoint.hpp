// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Checkpoints of a training run: master weights, moments and the step in one safetensors file, written beside and
// renamed. A run that is killed and started again from its checkpoint ends with the same bits as an undisturbed one.

#include <charconv>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include <graft/io/safetensors.hpp>
#include <graft/io/safetensors_writer.hpp>
#include <graft/train/trainer.hpp>

namespace graft {

namespace detail {

// What two models of one size and one training may differ in: sizes that leave the count alone, policies and their
// options, and which tensors are trained.
template <class Model>
std::string model_signature(Model& model) {
  std::string trained;
  for (std::size_t i = 0; i < model.layout().tensors.size(); ++i)
    if (model.parameters().trainable()[i]) trained += model.layout().tensors[i].name + ' ';
  std::ostringstream text;
  text.precision(17);
  for_each_size(model.shape(), [&](const char* what, const auto& value) { text << what << '=' << value << ' '; });
  text << "trained_tensors=" << std::hex << name_key(trained) << std::dec;
  // A model whose parameters are not all that it rests on says so itself.
  if constexpr (requires { model.signature(); })
    text << ' ' << model.signature();
  else if constexpr (requires { Model::mixture_type::name_of(model.mixture()); })
    text << ' ' << Model::mixture_type::name_of(model.mixture());
  return text.str();
}

}  // namespace detail

// Where two signatures part: "steps=300, this run has steps=400".
inline std::string first_difference(const std::string& found, const std::string& wanted) {
  std::size_t at = 0;
  while (at < found.size() && at < wanted.size() && found[at] == wanted[at]) ++at;
  const auto word = [&](const std::string& text) {
    // From the name in front of the value to the end of the value. Names may hold spaces, so the one before is cut off.
    const std::size_t equals = text.rfind('=', std::min(at, text.size() == 0 ? 0 : text.size() - 1));
    if (equals == std::string::npos) return text;
    const std::size_t space = text.rfind(' ', equals), end = text.find(' ', at);
    return text.substr(space == std::string::npos ? 0 : space + 1, end - (space == std::string::npos ? 0 : space + 1));
  };
  return "it has " + word(found) + ", this run has " + word(wanted);
}

// Everything that decides what a run computes, as text: two runs with the same text are the same run. data names the
// source.
template <class Model, class Communicator>
std::string run_signature(trainer<Model, Communicator>& run, const std::string& data) {
  const training_options& o = run.options();
  std::ostringstream text;
  text.precision(17);
  text << "steps=" << o.steps << " sequences=" << o.sequences << " positions=" << o.positions
       << " ranks=" << run.communicator().size() << " micro_sequences=" << o.micro_sequences
       << " balance_groups=" << o.balance_groups << " seed=" << o.seed << " learning_rate=" << o.learning_rate
       << " warmup_steps=" << o.warmup_steps << " decay=" << name_of(o.decay) << " final_fraction=" << o.final_fraction
       << " beta1=" << o.optimizer.beta1 << " beta2=" << o.optimizer.beta2 << " eps=" << o.optimizer.eps
       << " weight_decay=" << o.optimizer.weight_decay << " clip=" << o.optimizer.clip
       << " precision=" << Model::compute_type::precision::name << " device=" << Model::compute_type::backend::name
       << " start=" << std::hex << run.start_hash() << std::dec
       << " parameters=" << run.model().layout().parameter_count()
       << " trained=" << run.model().parameters().trained_parameter_count() << ' '
       << detail::model_signature(run.model()) << " data=" << data;
  return text.str();
}

namespace detail {

template <class M>
constexpr file_dtype checkpoint_dtype() {
  return std::is_same_v<M, double> ? file_dtype::f64 : file_dtype::f32;
}

}  // namespace detail

// Writes the state of the run. extra: strings of the caller's, given back by load_checkpoint.
// Errors: what the disk says, with the path, and a step that was not finite; the previous checkpoint then stays as it
// was.
template <class Model, class Communicator>
void save_checkpoint(trainer<Model, Communicator>& run, const std::filesystem::path& path, const std::string& data,
                     std::map<std::string, std::string> extra = {}) {
  using M = typename Model::M;
  run.check_finite();
  auto& context = run.model().context();
  const auto count = static_cast<std::size_t>(run.model().layout().size);
  const auto fetch = [&](auto source) {
    std::vector<M> values(count);
    copy_to_host(context, values.data(), source);
    return values;
  };
  const std::vector<M> master = fetch(run.model().parameters().master());
  const std::vector<M> first = fetch(run.optimizer().first_moment());
  const std::vector<M> second = fetch(run.optimizer().second_moment());
  extra["step"] = std::to_string(run.next_step());
  extra["signature"] = run_signature(run, data);
  constexpr file_dtype dtype = detail::checkpoint_dtype<M>();
  write_safetensors(path,
                    {make_tensor_source("first_moment", {count}, first.data(), dtype),
                     make_tensor_source("master", {count}, master.data(), dtype),
                     make_tensor_source("second_moment", {count}, second.data(), dtype)},
                    std::move(extra));
}

// Continues a run from its checkpoint; returns the strings that save_checkpoint was given.
// Errors: a file that is no checkpoint, or the checkpoint of a run with other options, data, model or precision; the
// sentence shows both.
template <class Model, class Communicator>
std::map<std::string, std::string> load_checkpoint(trainer<Model, Communicator>& run, const std::filesystem::path& path,
                                                   const std::string& data) {
  using M = typename Model::M;
  const safetensors_file file(path);
  std::map<std::string, std::string> metadata = file.metadata();
  GRAFT_CHECK(metadata.count("step") == 1 && metadata.count("signature") == 1, path.string(),
              ": expected the checkpoint of a training run, found a safetensors file without a step and a signature");
  const std::string wanted = run_signature(run, data);
  GRAFT_CHECK(metadata["signature"] == wanted, path.string(),
              ": the checkpoint belongs to another run: ", first_difference(metadata["signature"], wanted),
              "; remove the checkpoint to start again");
  index_t step = -1;
  const std::string& step_text = metadata["step"];
  const auto parsed = std::from_chars(step_text.data(), step_text.data() + step_text.size(), step);
  GRAFT_CHECK(parsed.ec == std::errc() && parsed.ptr == step_text.data() + step_text.size() && step >= 0 &&
                  step <= run.options().steps,
              path.string(), ": expected a step from 0 to ", run.options().steps, ", found ", step_text);
  auto& context = run.model().context();
  const auto count = static_cast<std::size_t>(run.model().layout().size);
  const auto stored = [&](const char* name) {
    const stored_tensor* tensor = file.find(name);
    GRAFT_CHECK(tensor != nullptr && tensor->size() == count, path.string(), ": expected a tensor '", name, "' of ",
                count, " elements, found ", tensor == nullptr ? std::string("none") : std::to_string(tensor->size()));
    return tensor;
  };
  // All are looked at before any is taken: a file that is wrong leaves the run as it was.
  const stored_tensor *master = stored("master"), *first = stored("first_moment"), *second = stored("second_moment");
  std::vector<M> values(count);
  const auto restore = [&](const stored_tensor* tensor, auto target) {
    file.read(*tensor, values.data());
    copy_from_host(context, target, values.data());
  };
  restore(master, run.model().parameters().master());
  restore(first, run.optimizer().first_moment());
  restore(second, run.optimizer().second_moment());
  run.model().parameters().refresh(context);
  run.set_next_step(step);
  metadata.erase("step");
  metadata.erase("signature");
  metadata.erase("format");
  return metadata;
}

}  // namespace graft
