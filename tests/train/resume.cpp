// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Same bits: for any number of threads, after a checkpoint and a new start, and in what is frozen.

#include "catch.hpp"

#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include <graft/train/checkpoint.hpp>

#include "training_check.hpp"

namespace resume_tests {

using namespace graft;
using namespace graft::test;

namespace fs = std::filesystem;

TEMPLATE_TEST_CASE("resume: threads, repetition and a checkpoint at any step give the same bits", "[train]",
                   dense_of<fp32>, dense_of<bf16>, moe_of<fp32>, moe_of<bf16>) {
  const scratch_folder folder;
  const fs::path file = folder.path / "checkpoint.safetensors";
  process<TestType> undisturbed(2);
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

  const bool edges = std::is_same_v<TestType, dense_of<fp32>>;  // before the first step and behind the last: once
  for (const index_t stop : edges ? std::vector<index_t>{0, 1, 3, step_count} : std::vector<index_t>{1, 3}) {
    CAPTURE(stop);
    {
      process<TestType> before;
      before.losses(stop);
      save_checkpoint(before.run, file, "arithmetic", {{"note", "kept"}});
    }
    process<TestType> after(stop == 1 ? 2 : 1);
    after.model.initialize(99);  // other weights: all come from the file
    const auto extra = load_checkpoint(after.run, file, "arithmetic");
    CHECK(extra == std::map<std::string, std::string>{{"note", "kept"}});
    CHECK(after.run.next_step() == stop);
    CHECK(after.losses(step_count) == std::vector<double>(losses.begin() + stop, losses.end()));
    CHECK(after.state() == want);
  }
}

TEMPLATE_TEST_CASE("trainer: frozen tensors keep their bits under weight decay", "[train]", moe_of<fp32>,
                   moe_of<bf16>) {
  struct freeze {
    const char* what;
    bool (*frozen)(const tensor_entry&);
  };
  const freeze of = GENERATE(
      freeze{"experts", [](const tensor_entry& e) { return e.expert >= 0; }},
      freeze{"one expert", [](const tensor_entry& e) { return e.expert == 1; }},
      freeze{"norms", [](const tensor_entry& e) { return e.kind == role::norm; }},
      freeze{"attention", [](const tensor_entry& e) { return e.kind == role::attention; }},
      freeze{"one part", [](const tensor_entry& e) { return e.name == "model.layers.0.self_attn.k_proj.weight"; }},
      freeze{"all but routers", [](const tensor_entry& e) { return e.kind != role::router; }});
  INFO(of.what);
  process<TestType> p(1, some_steps(), [&](const tensor_entry& entry) { return !of.frozen(entry); });
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
    if (of.frozen(entry) && narrow.data != nullptr)
      CHECK(std::memcmp(&narrow_before[at], narrow.data + at, size * sizeof(narrow_before[0])) == 0);
  }
  CHECK(kept > 0);
}

}  // namespace resume_tests
