// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Same bits: for any number of threads, after a checkpoint and a new start, and in what is frozen. Checkpoints of other runs are refused.

#include "catch.hpp"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <graft/train/checkpoint.hpp>

#include "training_check.hpp"

using namespace graft;
using namespace graft::test;

namespace {

namespace fs = std::filesystem;

// Large enough for rows, products and attention to be shared among threads.
template <class Model>
transformer_shape shape_for() {
  return {.vocabulary = 61, .width = 64, .blocks = 2, .heads = 4, .kv_heads = 2, .head_dim = 16, .hidden = 96, .positions = 32, .qk_norm = true,
          .experts = Model::mixture_type::present ? 3 : 0};
}
constexpr index_t step_count = 5;

training_options some_steps() {
  return {.steps = step_count, .sequences = 16, .positions = 32, .micro_sequences = 8, .learning_rate = 0.01, .warmup_steps = 2};
}

// A model and its trainer with a context of their own: what a process has.
template <class Model>
struct process {
  context<cpu> ctx;
  Model model;
  trainer<Model> run;
  arithmetic_source source{61};

  explicit process(int threads = 2, const training_options& options = some_steps(), const trainable_rule& rule = {}, std::uint64_t seed = 1,
                   const transformer_shape& shape = shape_for<Model>())
      : ctx({.threads = threads}), model(ctx, shape), run((model.initialize(seed), model), options, rule) {}

  std::vector<double> losses(index_t until) {
    std::vector<double> result;
    while (run.next_step() < until) result.push_back(run.step(source).loss);
    return result;
  }
  std::string signature(const std::string& data = "data") { return run_signature(run, data); }
  // Everything that a run has learned, as bytes.
  std::string state() {
    std::string bytes;
    const auto append = [&](auto arena) {
      bytes.append(reinterpret_cast<const char*>(arena.data), static_cast<std::size_t>(arena.extent(0)) * sizeof(*arena.data));
    };
    append(model.parameters().master());
    if (model.parameters().narrow().data != nullptr) append(model.parameters().narrow());
    append(run.optimizer().first_moment());
    append(run.optimizer().second_moment());
    return bytes;
  }
};

struct scratch_folder {
  fs::path path = fs::temp_directory_path() / ("graft_resume_" + std::to_string(reinterpret_cast<std::uintptr_t>(this)));
  scratch_folder() { fs::create_directories(path); }
  ~scratch_folder() { fs::remove_all(path); }
};

}  // namespace

TEMPLATE_TEST_CASE("resume: threads, repetition and a checkpoint at any step give the same bits", "[train]", dense_of<fp32>, dense_of<bf16>,
                   moe_of<fp32>, moe_of<bf16>) {
  const scratch_folder folder;
  const fs::path file = folder.path / "checkpoint.safetensors";
  process<TestType> undisturbed;
  const double first = undisturbed.run.step(undisturbed.source).loss;
  const std::size_t requests = undisturbed.ctx.workspace().requests();
  std::vector<double> losses = undisturbed.losses(step_count);
  losses.insert(losses.begin(), first);
  CHECK(undisturbed.ctx.workspace().requests() == requests);  // no memory asked for after the first step
  const std::string want = undisturbed.state();
  CHECK(losses.back() < losses.front());

  process<TestType> one_thread(1);
  CHECK(one_thread.losses(step_count) == losses);
  CHECK(one_thread.state() == want);

  for (const index_t stop : {index_t{0}, index_t{1}, index_t{3}, step_count}) {
    CAPTURE(stop);
    {
      process<TestType> before;
      before.losses(stop);
      save_checkpoint(before.run, file, "arithmetic", {{"note", "kept"}});
    }
    process<TestType> after(1, some_steps(), {}, 99);  // starts from other weights: all come from the file
    const auto extra = load_checkpoint(after.run, file, "arithmetic");
    CHECK(extra == std::map<std::string, std::string>{{"note", "kept"}});
    CHECK(after.run.next_step() == stop);
    CHECK(after.losses(step_count) == std::vector<double>(losses.begin() + stop, losses.end()));
    CHECK(after.state() == want);
  }
}

TEMPLATE_TEST_CASE("trainer: frozen tensors keep their bits under weight decay", "[train]", moe_of<fp32>, moe_of<bf16>) {
  struct freeze {
    const char* what;
    bool (*frozen)(const tensor_entry&);
  };
  const freeze of = GENERATE(freeze{"experts", [](const tensor_entry& e) { return e.expert >= 0; }},
                             freeze{"one expert", [](const tensor_entry& e) { return e.expert == 1; }},
                             freeze{"norms", [](const tensor_entry& e) { return e.kind == role::norm; }},
                             freeze{"attention", [](const tensor_entry& e) { return e.kind == role::attention; }},
                             freeze{"one part", [](const tensor_entry& e) { return e.name == "model.layers.0.self_attn.k_proj.weight"; }},
                             freeze{"all but routers", [](const tensor_entry& e) { return e.kind != role::router; }});
  INFO(of.what);
  process<TestType> p(2, some_steps(), [&](const tensor_entry& entry) { return !of.frozen(entry); });
  const auto before = master_of(p.model);
  const auto narrow = p.model.parameters().narrow();
  const std::vector<typename TestType::T> narrow_before(narrow.data, narrow.data + narrow.extent(0));
  p.losses(3);
  const auto after = master_of(p.model);
  int kept = 0;
  for (const tensor_entry& entry : p.model.layout().tensors) {
    INFO(entry.name);
    const auto at = static_cast<std::size_t>(entry.offset), size = static_cast<std::size_t>(entry.size());
    const bool same = std::memcmp(&before[at], &after[at], size * sizeof(before[0])) == 0;
    CHECK(same == of.frozen(entry));
    kept += same;
    if (of.frozen(entry) && narrow.data != nullptr) CHECK(std::memcmp(&narrow_before[at], narrow.data + at, size * sizeof(narrow_before[0])) == 0);
  }
  CHECK(kept > 0);
}

TEST_CASE("trainer: a run that diverges says so", "[train]") {
  training_options options = some_steps();
  options.steps = 20;
  options.learning_rate = 1e30;
  process<dense_of<fp32>> p(1, options);
  CHECK_THROWS_WITH(p.losses(20), Catch::Contains("training diverged, lower the learning rate"));

  // A gradient whose norm is infinite, though the loss is a number yet.
  process<dense_of<fp32>> q(1);
  const tensor_entry* head = q.model.layout().find("lm_head.weight");
  for (index_t i = 0; i < head->size(); ++i) q.model.parameters().master()[head->offset + i] *= 1e25f;
  q.model.parameters().refresh(q.ctx);
  CHECK_THROWS_WITH(q.losses(1), Catch::Contains("gradient norm of inf") && Catch::Contains("training diverged"));
}

// Everything that decides what a run computes is in its signature.
TEST_CASE("checkpoint: runs that differ have different signatures", "[train]") {
  using model_type = moe_of<fp32>;
  process<model_type> p;
  const std::string signature = p.signature();
  CHECK(process<model_type>(1).signature() == signature);
  CHECK(p.signature("other data") != signature);
  const auto with = [&](auto change) {
    training_options options = some_steps();
    change(options);
    return process<model_type>(1, options).signature();
  };
  CHECK(with([](auto& o) { o.steps = 6; }) != signature);
  CHECK(with([](auto& o) { o.sequences = 8; }) != signature);
  CHECK(with([](auto& o) { o.positions = 16; }) != signature);
  CHECK(with([](auto& o) { o.micro_sequences = 4; }) != signature);
  CHECK(with([](auto& o) { o.balance_groups = 2; }) != signature);
  CHECK(with([](auto& o) { o.learning_rate = 0.0100000001; }) != signature);
  CHECK(with([](auto& o) { o.warmup_steps = 3; }) != signature);
  CHECK(with([](auto& o) { o.decay = decay_form::linear; }) != signature);
  CHECK(with([](auto& o) { o.final_fraction = 0.2; }) != signature);
  CHECK(with([](auto& o) { o.optimizer.beta1 = 0.8; }) != signature);
  CHECK(with([](auto& o) { o.optimizer.beta2 = 0.99; }) != signature);
  CHECK(with([](auto& o) { o.optimizer.eps = 1e-6; }) != signature);
  CHECK(with([](auto& o) { o.optimizer.weight_decay = 0; }) != signature);
  CHECK(with([](auto& o) { o.optimizer.clip = 0; }) != signature);
  // Same counts, other model.
  const auto with_shape = [&](auto change) {
    transformer_shape shape = shape_for<model_type>();
    change(shape);
    return process<model_type>(1, some_steps(), {}, 1, shape).signature();
  };
  CHECK(with_shape([](auto& s) { s.rope_theta = 5000; }) != signature);
  CHECK(with_shape([](auto& s) { s.norm_eps = 1e-6; }) != signature);
  CHECK(with_shape([](auto& s) { s.scaling.factor = 8; }) != signature);
  CHECK(with_shape([](auto& s) { s.heads = 8, s.head_dim = 8, s.kv_heads = 4, s.qk_norm = false; }) !=
        with_shape([](auto& s) { s.qk_norm = false; }));
  const auto frozen = [&](int expert) {
    return process<model_type>(1, some_steps(), [=](const tensor_entry& e) { return e.expert != expert; }).signature();
  };
  CHECK(frozen(0) != frozen(1));
  CHECK(process<transformer<mixture_of<1>, compute<fp32, cpu>>>(1).signature() != signature);
  process<model_type> other;
  other.model.mixture().balancer.balancers.first.coefficient = 0.5;
  CHECK(other.signature() != signature);
}

TEST_CASE("checkpoint: what is no checkpoint of this run is refused and nothing is changed", "[train]") {
  const scratch_folder folder;
  const fs::path file = folder.path / "checkpoint.safetensors";
  process<dense_of<fp32>> p;
  p.losses(2);
  save_checkpoint(p.run, file, "data");
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);  // nothing beside it

  training_options options = some_steps();
  options.learning_rate = 0.02;
  process<dense_of<fp32>> faster(1, options);
  const std::string untouched = faster.state();
  CHECK_THROWS_WITH(load_checkpoint(faster.run, file, "data"),
                    Catch::Contains(file.string()) && Catch::Contains("belongs to another run") && Catch::Contains("learning_rate=0.01 ") &&
                        Catch::Contains("learning_rate=0.02 "));
  CHECK_THROWS_WITH(load_checkpoint(faster.run, file, "other"), Catch::Contains("data=data"));
  CHECK(faster.state() == untouched);
  CHECK(faster.run.next_step() == 0);
  process<dense_of<bf16>> narrow(1);
  CHECK_THROWS_WITH(load_checkpoint(narrow.run, file, "data"), Catch::Contains("precision=fp32") && Catch::Contains("precision=bf16"));

  process<dense_of<fp32>> fresh(1);
  const std::string before = fresh.state();
  CHECK_THROWS_AS(load_checkpoint(fresh.run, folder.path / "absent.safetensors", "data"), error);
  const auto size = fs::file_size(file);
  for (const auto kept : {size - 1, size / 2, std::uintmax_t{100}, std::uintmax_t{4}, std::uintmax_t{0}}) {
    const fs::path cut = folder.path / "cut.safetensors";
    fs::copy_file(file, cut, fs::copy_options::overwrite_existing);
    fs::resize_file(cut, kept);
    CAPTURE(kept);
    CHECK_THROWS_WITH(load_checkpoint(fresh.run, cut, "data"), Catch::Contains(cut.string()));
  }
  const fs::path weights = folder.path / "weights.safetensors";
  const std::vector<float> some = {1, 2};
  write_safetensors(weights, {make_tensor_source("w", {2}, some.data(), file_dtype::f32)}, {});
  CHECK_THROWS_WITH(load_checkpoint(fresh.run, weights, "data"), Catch::Contains("expected the checkpoint of a training run"));
  write_safetensors(weights, {make_tensor_source("master", {2}, some.data(), file_dtype::f32)},
                    {{"step", "1"}, {"signature", run_signature(fresh.run, "data")}});
  CHECK_THROWS_WITH(load_checkpoint(fresh.run, weights, "data"), Catch::Contains("expected a tensor 'master' of"));
  CHECK(fresh.state() == before);
  CHECK(fresh.run.next_step() == 0);
  load_checkpoint(fresh.run, file, "data");
  CHECK(fresh.state() == p.state());
}
