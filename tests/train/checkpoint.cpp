// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What is no checkpoint of a run is refused, and so is a run that diverges.

#include "catch.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include <graft/train/checkpoint.hpp>

#include "training_check.hpp"

namespace checkpoint_tests {

using namespace graft;
using namespace graft::test;

namespace fs = std::filesystem;

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
    transformer_shape shape = medium_shape<model_type>();
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
                    Catch::Contains(file.string()) && Catch::Contains("belongs to another run") &&
                        Catch::Contains("it has learning_rate=0.01, this run has learning_rate=0.02;"));
  process<dense_of<fp32>> same(1);
  CHECK_THROWS_WITH(load_checkpoint(same.run, file, "other"),
                    Catch::Contains("it has data=data, this run has data=other"));
  CHECK(faster.state() == untouched);
  CHECK(faster.run.next_step() == 0);
  process<dense_of<fp32>> elsewhere(1, same.run.options(), {}, 99);  // other initial weights
  CHECK_THROWS_WITH(load_checkpoint(elsewhere.run, file, "data"), Catch::Contains("it has start="));
  process<dense_of<bf16>> narrow(1);
  CHECK_THROWS_WITH(load_checkpoint(narrow.run, file, "data"),
                    Catch::Contains("precision=fp32") && Catch::Contains("precision=bf16"));

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
  CHECK_THROWS_WITH(load_checkpoint(fresh.run, weights, "data"),
                    Catch::Contains("expected the checkpoint of a training run"));
  write_safetensors(weights, {make_tensor_source("master", {2}, some.data(), file_dtype::f32)},
                    {{"step", "1"}, {"signature", run_signature(fresh.run, "data")}});
  CHECK_THROWS_WITH(load_checkpoint(fresh.run, weights, "data"), Catch::Contains("expected a tensor 'master' of"));
  CHECK(fresh.state() == before);
  CHECK(fresh.run.next_step() == 0);
  load_checkpoint(fresh.run, file, "data");
  CHECK(fresh.state() == p.state());
}

}  // namespace checkpoint_tests
