// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The steps one by one: mix, evaluate, generate, threads, and what the programs say of themselves.

#include <algorithm>
#include <cmath>

#include <graft/io/text_source.hpp>
#include <graft/mix/model_directories.hpp>

#include "program.hpp"

namespace steps_tests {

using namespace program_test;
using nlohmann::json;

namespace {

std::string generated(const fs::path& model, const words& more) {
  return succeed("generate",
                 changed({"--model", model.string(), "--tokens", "60", "--threads", "1", "--device", "cpu"}, more))
      .out;
}

}  // namespace

TEST_CASE("one thread and two train to the same bits") {
  const work_folder work;
  const fs::path one = tiny_seed(work, "one"), two = tiny_seed(work, "two", {"--threads", "2"});
  CHECK(read(one / "model.safetensors") == read(two / "model.safetensors"));
  CHECK(read(tiny_seed(work, "other", {"--seed", "1"}) / "model.safetensors") != read(one / "model.safetensors"));
}

TEST_CASE("every router and layout mixes, trains and is read again") {
  const work_folder work;
  const fs::path seed = tiny_seed(work);
  const words branches{"a=" + seed.string(), "b=" + seed.string(), "c=" + seed.string(), "d=" + seed.string()};
  const auto [flag, name, slots] =
      GENERATE(table<std::string, std::string, std::string>({{"--router", "softmax_top_k", "2"},
                                                             {"--router", "renormalised_top_k", "2"},
                                                             {"--router", "switch_top_1", "1"},
                                                             {"--router", "soft", "4"},
                                                             {"--router", "sample_top_1", "4"},
                                                             {"--router", "sigmoid_top_k", "2"},
                                                             {"--router", "group_limited_top_k", "2"},
                                                             {"--router", "null_top_k", "2"},
                                                             {"--router", "flex_olmo", "2"},
                                                             {"--router", "context_top_k", "1"},
                                                             {"--router", "ermoe", "2"},
                                                             {"--router", "expert_choice", "4"},
                                                             {"--layout", "capacity", "2"},
                                                             {"--layout", "capacity_by_probability", "2"},
                                                             {"--layout", "capacity+padded", "2"},
                                                             {"--layout", "adapted", "2"},
                                                             {"--layout", "lora", "2"}}));
  CAPTURE(flag, name);
  const fs::path mixed = work / "mixed", trained = work / "trained";
  succeed("mix", words{"--out", mixed.string(), flag, name, "--experts-per-token", slots} + branches);
  tiny_branch(work, mixed, "trained", code(4000));
  const json card = json::parse(read(trained / "graft.json"));
  CHECK(card["policies"][flag == "--router" ? "router" : "layout"]["name"] == name);
  const std::string table = succeed("evaluate", {"--domain", "code=" + (work / "trained.txt").string(), "--positions",
                                                 "16", "--device", "cpu", "--threads", "1", trained.string()})
                                .out;
  CHECK(table.find("nan") == std::string::npos);
}

TEST_CASE("generate continues a prompt") {
  const work_folder work;
  const fs::path seed = tiny_seed(work);
  const words prompt{"--prompt", "l'été "};
  const std::string greedy = generated(seed, words{"--temperature", "0"} + prompt);
  CHECK(greedy.starts_with("l'été "));
  CHECK(greedy.ends_with("\n"));
  CHECK(greedy.size() > 20);
  CHECK(generated(seed, words{"--temperature", "0"} + prompt) == greedy);
  CHECK(generated(seed, words{"--temperature", "0", "--seed", "9"} + prompt) == greedy);

  // An almost untrained model at a high temperature writes bytes of all kinds: characters come out all the same.
  const words wild = words{"--temperature", "5", "--seed", "3"} + prompt;
  const std::string sampled = generated(seed, wild);
  CHECK(generated(seed, wild) == sampled);
  CHECK(generated(seed, words{"--temperature", "5", "--seed", "4"} + prompt) != sampled);
  CHECK(sampled.find("\xEF\xBF\xBD") != std::string::npos);
  CHECK(graft::detail::invalid_utf8_bytes(sampled) == 0);

  CHECK(generated(seed, words{"--tokens", "0"} + prompt) == "l'été \n");
}

TEST_CASE("mix averages with weights and keeps experts") {
  const work_folder work;
  const fs::path seed = tiny_seed(work);
  const fs::path a = tiny_branch(work, seed, "code", code(8000)), b = tiny_branch(work, seed, "digits", digits(8000));
  const words models{"code=" + a.string(), "digits=" + b.string() + "/"};
  const auto soup = [&](const std::string& name, const words& more) {
    succeed("mix", words{"--recipe", "soup", "--out", (work / name).string()} + more + models);
    return graft::load_host_model(work / name);
  };
  const auto first = graft::load_host_model(a), second = graft::load_host_model(b), even = soup("even", {}),
             weighted = soup("weighted", {"--weights", "3,1"}), only = soup("only", {"--weights", "0,2"});
  CHECK(only.values == second.values);
  std::size_t differ = 0;
  for (std::size_t i = 0; i < first.values.size(); ++i) {
    const double x = first.values[i], y = second.values[i];
    // Two products, a sum and a rounding in fp32: 4 half units in the last place of the larger.
    const double tolerance = 4 * 6e-8 * std::max(std::abs(x), std::abs(y)) + 1e-38;
    if (std::abs(even.values[i] - (x + y) / 2) > tolerance ||
        std::abs(weighted.values[i] - (3 * x + y) / 4) > tolerance)
      ++differ;
  }
  CHECK(differ == 0);
  CHECK(even.values != weighted.values);

  const words btx = words{"--recipe", "btx", "--out", (work / "btx").string()} + models;
  succeed("mix", btx);
  const json card = json::parse(read(work / "btx" / "graft.json"));
  CHECK(card["experts"] ==
        json::parse(R"([{"name": "code", "domain": "code"}, {"name": "digits", "domain": "digits"}])"));
  CHECK(card["provenance"]["parents"].get<words>() == words{"code", "digits"});
  const std::string bits = read(work / "btx" / "model.safetensors");
  succeed("mix", btx);
  CHECK(read(work / "btx" / "model.safetensors") == bits);

  // The mixture is trained further as any model is.
  succeed("branch", words{"--from", (work / "btx").string(), "--out", (work / "trained").string(), "--trained",
                          "routers", "--domain", "code=" + (work / "code.txt").string(), "--domain",
                          "digits=" + (work / "digits.txt").string()} +
                        tiny_training(2));
  const auto untrained = graft::load_host_model(work / "btx"), trained = graft::load_host_model(work / "trained");
  for (const auto& entry : untrained.layout.tensors) {
    INFO(entry.name);
    const auto at = static_cast<std::size_t>(entry.offset), end = at + static_cast<std::size_t>(entry.size());
    const bool same = std::equal(untrained.values.begin() + static_cast<std::ptrdiff_t>(at),
                                 untrained.values.begin() + static_cast<std::ptrdiff_t>(end),
                                 trained.values.begin() + static_cast<std::ptrdiff_t>(at));
    CHECK(same == (entry.kind != graft::role::router));
  }
}

TEST_CASE("mix makes experts of one model") {
  const work_folder work;
  const fs::path seed = tiny_seed(work, "seed", {"--blocks", "2"});
  const words upcycle{"--recipe",
                      "upcycle",
                      "--experts",
                      "clones=3+drop=0.25",
                      "--moe-period",
                      "2",
                      "--out",
                      (work / "upcycled").string(),
                      "seed=" + seed.string()};
  succeed("mix", upcycle);
  const auto model = graft::load_host_model(work / "upcycled");
  CHECK((model.info.config.shape.experts == 3 && model.info.config.shape.moe_period == 2));
  CHECK(model.info.card->experts.back().name == "seed.2");
  CHECK(model.info.card->provenance["method"] == "upcycle");
  CHECK(model.layout.find("model.layers.0.mlp.gate_proj.weight") != nullptr);
  const std::string bits = read(work / "upcycled" / "model.safetensors");
  succeed("mix", upcycle);
  CHECK(read(work / "upcycled" / "model.safetensors") == bits);
  succeed("branch", words{"--from", (work / "upcycled").string(), "--out", (work / "trained").string(), "--domain",
                          "prose=" + (work / "prose.txt").string()} +
                        tiny_training(2));
  check_refused("mix", run("mix", upcycle + words{"code=" + seed.string()}), {"--recipe upcycle", "one model", "2"});
}

TEST_CASE("evaluate prints a table and writes it as JSON") {
  const work_folder work;
  const fs::path seed = tiny_seed(work), branch = tiny_branch(work, seed, "code", code(8000));
  fs::create_directories(work / "copy");
  fs::copy(seed, work / "copy" / "seed", fs::copy_options::recursive);
  // The order of the README: a domain may stand right before the models.
  const words command = words{"--data",    (work / "data").string(),
                              "--json",    (work / "table.json").string(),
                              "--threads", "1",
                              "--device",  "cpu",
                              "--domain",  "prose=" + (work / "prose.txt").string(),
                              "--domain",  "code=" + (work / "code.txt").string()} +
                        words{branch.string() + "/", seed.string(), (work / "copy" / "seed").string()};
  const outcome result = succeed("evaluate", command);
  CHECK(result.out.starts_with("bits per byte"));
  CHECK(result.err.find("held out") != std::string::npos);
  const json table = json::parse(read(work / "table.json"));
  REQUIRE(table["rows"].size() == 3);
  CHECK(table["rows"][0]["name"] == "code");
  // Two of one name are told apart by their paths.
  CHECK(table["rows"][1]["name"] == seed.string());
  CHECK(table["rows"][2]["name"] == (work / "copy" / "seed").string());
  CHECK(table["rows"][1]["bits_per_byte"] == table["rows"][2]["bits_per_byte"]);
  CHECK(table["rows"][0]["bits_per_byte"] != table["rows"][1]["bits_per_byte"]);
  CHECK(succeed("evaluate", command).out == result.out);
}

TEST_CASE("every program explains itself") {
  const std::string program = GENERATE("branch_train_mix", "pretrain", "branch", "mix", "stitch", "forest", "evaluate",
                                       "generate", "cost_sheet");
  CAPTURE(program);
  const outcome help = succeed(program, {"--help"});
  CHECK(help.err.empty());
  CHECK(help.out.find("Usage: " + program) != std::string::npos);
  // Every option says what it is, in column 30, after it or in the next line.
  words lines;
  std::istringstream text(help.out);
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  lines.emplace_back();
  int options = 0;
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
    INFO(lines[i]);
    CHECK(lines[i].find("->") == std::string::npos);
    if (!lines[i].starts_with("  --")) continue;
    ++options;
    const bool beside = lines[i].find_first_not_of(' ', 29) == 30, below = lines[i + 1].find_first_not_of(' ') == 30;
    CHECK((beside || below));
  }
  CHECK(options >= 5);

  std::vector<words> mistakes{{"--no-such-option"},
                              {"--seed", "many", "--out", "x", "--model", "x", "--from", "x", "a=b"}};
  if (program != "branch_train_mix") mistakes.emplace_back();  // alone that is the whole default run
  for (const words& wrong : mistakes) {
    const outcome result = run(program, wrong);
    check_refused(program, result, {program + " --help"});
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  }
}

}  // namespace steps_tests
