// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// branch_train_mix on three small domains: what it leaves, that doing it again changes nothing, and the same bits
// however it is run.

#include <algorithm>
#include <cmath>
#include <set>

#include <graft/io/safetensors.hpp>
#include <graft/io/text_source.hpp>

#include "program.hpp"

namespace workflow_tests {

using namespace program_test;
using nlohmann::json;

namespace {

const words domain_names{"prose", "code", "digits"};
const words experts{"expert-prose", "expert-code", "expert-digits"};
const words mixing_rows = words{"seed"} + experts + words{"soup"};
const words all_rows = mixing_rows + words{"dense-mix-tokens", "dense-all-tokens", "btx-untrained", "btx"};

words keys_of(const json& object) {
  words keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  return keys;
}
words sorted(words names) {
  std::sort(names.begin(), names.end());
  return names;
}

// timed: branch_train_mix measures what `evaluate` does not.
void check_results(const json& results, const words& rows, bool timed = true) {
  CHECK(keys_of(results) == sorted({"rows", "domains", "seed", "device", "precision"}));
  CHECK(results["domains"].get<words>() == domain_names);
  CHECK(results["seed"] == 0);
  CHECK(results["device"] == "cpu");
  CHECK(results["precision"] == "bf16");
  words names;
  for (const json& row : results["rows"]) {
    names.push_back(row["name"]);
    CAPTURE(row.dump());
    words keys{
        "name", "method", "parameters", "bits_per_byte", "train_tokens", "critical_path_tokens", "tokens_per_second"};
    if (row["name"].get<std::string>().starts_with("btx")) keys.emplace_back("max_violation");
    if (timed) {
      keys = keys + words{"evaluation_tokens_per_second", "peak_memory_bytes", "peak_memory_of"};
      CHECK(row["evaluation_tokens_per_second"].get<double>() > 0);
      // At least the weights in fp32, at most what this machine could have given.
      CHECK(row["peak_memory_bytes"].get<double>() > 4.0 * row["parameters"]["total"].get<double>());
      CHECK(row["peak_memory_of"] == (row["parameters"]["trained"] > 0 ? "training" : "evaluation"));
    } else if (row["parameters"]["trained"] > 0) {
      keys = keys + words{"peak_memory_bytes", "peak_memory_of"};  // of its training
    }
    CHECK(keys_of(row) == sorted(keys));
    CHECK(row["method"].is_string());
    const json& parameters = row["parameters"];
    CHECK(keys_of(parameters) == sorted({"total", "active", "trained"}));
    for (const json& count : parameters) CHECK(count.is_number_integer());
    CHECK(parameters["total"] >= parameters["active"]);
    CHECK(parameters["active"] > 0);
    CHECK(row["train_tokens"] >= row["critical_path_tokens"]);
    CHECK(row["critical_path_tokens"] > 0);
    CHECK(std::isfinite(row["tokens_per_second"].get<double>()));

    const json& bits = row["bits_per_byte"];
    CHECK(keys_of(bits) == sorted(domain_names + words{"average"}));
    double sum = 0;
    for (const std::string& domain : domain_names) {
      // Between nothing and, with room for an untrained model that is sure of itself, twice the 8 bits of a byte.
      CHECK(bits[domain].get<double>() > 0);
      CHECK(bits[domain].get<double>() < 16);
      sum += bits[domain].get<double>();
    }
    CHECK(std::abs(bits["average"].get<double>() - sum / 3) < 1e-12);  // fp64, three numbers below 16
  }
  CHECK(sorted(names) == sorted(rows));
}

const json& row_of(const json& results, const std::string& name) {
  for (const json& row : results["rows"])
    if (row["name"] == name) return row;
  FAIL("no row " << name);
  return results;
}

// What the rows say of tokens: of `step` trained ones each, on the preset's numbers of steps.
void check_tokens(const json& results) {
  const auto all = [&](const std::string& name) { return row_of(results, name)["train_tokens"].get<std::int64_t>(); };
  const auto path = [&](const std::string& name) {
    return row_of(results, name)["critical_path_tokens"].get<std::int64_t>();
  };
  const auto seed = all("seed"), expert = all("expert-code") - seed, mix = all("dense-mix-tokens") - seed;
  CHECK((seed > 0 && expert > 0 && mix > 0));
  for (const std::string& name : experts) CHECK((all(name) == seed + expert && path(name) == seed + expert));
  CHECK((all("soup") == seed + 3 * expert && path("soup") == seed + expert));
  CHECK((all("btx-untrained") == seed + 3 * expert && path("btx-untrained") == seed + expert));
  CHECK((all("btx") == seed + 3 * expert + mix && path("btx") == seed + expert + mix));
  CHECK((all("dense-all-tokens") == all("btx") && path("dense-all-tokens") == all("btx")));
  CHECK(row_of(results, "soup")["parameters"]["trained"] == 0);
  CHECK(row_of(results, "btx")["parameters"]["trained"] == row_of(results, "btx")["parameters"]["total"]);
  CHECK(row_of(results, "btx")["parameters"]["total"] > row_of(results, "btx")["parameters"]["active"]);
}

// Tags that open close in the right order, in one root named svg.
void check_svg(const std::string& text) {
  CHECK(text.starts_with("<?xml"));
  words open;
  std::set<std::string> roots;
  std::size_t drawn = 0;
  for (std::size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at)) {
    if (text.compare(at, 4, "<!--") == 0) {
      at = text.find("-->", at);
      REQUIRE(at != std::string::npos);
      continue;
    }
    const std::size_t end = text.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string tag = text.substr(at + 1, end - at - 1);
    at = end;
    if (tag[0] == '?' || tag[0] == '!') continue;
    const std::string name = tag.substr(tag[0] == '/', tag.find_first_of(" \t\r\n/", 1) - (tag[0] == '/'));
    if (tag[0] == '/') {
      REQUIRE(!open.empty());
      REQUIRE(open.back() == name);
      open.pop_back();
      continue;
    }
    if (open.empty()) roots.insert(name);
    drawn += name == "path" || name == "polygon";
    if (tag.back() != '/') open.push_back(name);
  }
  CHECK(open.empty());
  CHECK(roots == std::set<std::string>{"svg"});
  CHECK(drawn > 10);
}

std::map<std::string, std::string> weights(const fs::path& run, const words& models) {
  std::map<std::string, std::string> bits;
  for (const std::string& name : models) bits[name] = read(run / "models" / name / "model.safetensors");
  return bits;
}

}  // namespace

TEST_CASE("the complete workflow", "[slow]") {
  const work_folder work;
  const words data = three_domains(work, 30000);
  const words command = words{"--preset", "smoke", "--device", "cpu", "--precision", "bf16"} + data;
  const fs::path first = work / "it's the first";  // a name that a shell would stumble over
  const words first_command = words{"--out", first.string(), "--threads", "1"} + command;

  const outcome result = succeed("branch_train_mix", first_command);
  const json results = json::parse(read(first / "results.json"));
  check_results(results, all_rows);
  check_tokens(results);

  // Results go to stdout, progress to stderr.
  CHECK(result.out.starts_with("bits per byte"));
  for (const std::string& row : all_rows) CHECK(result.out.find("\n" + row + " ") != std::string::npos);
  CHECK(result.out.find("tokens/s  0:00 left") == std::string::npos);
  CHECK(result.err.find("tokens/s  0:00 left") != std::string::npos);
  CHECK(result.out.starts_with(read(first / "results.txt")));

  check_svg(read(first / "plots" / "loss.svg"));
  check_svg(read(first / "plots" / "routing.svg"));
  CHECK(!fs::exists(first / "plots" / "loss.gnuplot.log"));

  const std::string samples = read(first / "samples.txt");
  CHECK(graft::detail::invalid_utf8_bytes(samples) == 0);
  for (const std::string& domain : domain_names) CHECK(samples.find("--- " + domain + ": ") != std::string::npos);
  // The mixture's are shown, the soup's are in the file alone.
  CHECK(samples.starts_with("=== btx\n"));
  const std::string shown = samples.substr(8, samples.find("\n=== soup\n") - 8);
  CHECK(result.out.find(shown) != std::string::npos);

  const std::string page = read(first / "report.html");
  CHECK(page.find("<html") != std::string::npos);
  CHECK(page.find("http://") == page.find("http://www.w3.org"));  // nothing is fetched
  for (const std::string& row : all_rows) CHECK(page.find(row) != std::string::npos);

  // Every model directory is one that the other programs take.
  words folders;
  for (const std::string& name : all_rows) folders.push_back((first / "models" / name).string() + "/");
  succeed("evaluate", words{"--data", (work / "evaluated").string(), "--max-tokens", "640", "--threads", "1",
                            "--device", "cpu", "--json", (work / "evaluated.json").string()} +
                          data + folders);
  const json evaluated = json::parse(read(work / "evaluated.json"));
  check_results(evaluated, all_rows, false);
  CHECK(left_behind(first) == words{});

  // Again: nothing is trained and nothing changes.
  const auto before = contents(first);
  const outcome again = succeed("branch_train_mix", first_command);
  CHECK(again.err.find("tokens/s") == std::string::npos);
  CHECK(again.err.find("trained already") != std::string::npos);
  const auto after = contents(first);
  CHECK(after.size() == before.size());
  for (const auto& [name, text] : before) {
    INFO(name);
    // gnuplot writes no date; a plot is a function of its data.
    CHECK((after.count(name) == 1 && after.at(name) == text));
  }

  // In another folder, with two threads, with branches side by side, and killed a few times on the way.
  const words others = mixing_rows + words{"btx-untrained", "btx"};
  const auto bits = weights(first, others);
  const fs::path second = work / "second";
  const words second_command =
      words{"--out", second.string(), "--threads", "2", "--jobs", "2", "--without-controls", "--checkpoint-seconds",
            "0.1"} +
      command;
  std::mt19937 random(7);
  for (int kill = 0; kill < 4; ++kill) {
    process attempt("branch_train_mix", second_command);
    std::this_thread::sleep_for(std::chrono::duration<double>(std::uniform_real_distribution<>(0.05, 1.2)(random)));
    attempt.wait(SIGKILL);
  }
  succeed("branch_train_mix", second_command);
  for (const auto& [name, text] : weights(second, others)) {
    INFO(name);
    CHECK(text == bits.at(name));
    if (name != "soup" && name != "btx-untrained")
      CHECK(metrics_without_time(second / "models" / name) == metrics_without_time(first / "models" / name));
  }
  check_results(json::parse(read(second / "results.json")), others);
  CHECK(left_behind(second) == words{});
}

TEST_CASE("mixtures of the same experts compared", "[slow]") {
  const work_folder work;
  const fs::path run = work / "run";
  const std::string list = "switch_top_1/1+none,sigmoid_top_k/2+loss_free_bias,soft/4";
  succeed("branch_train_mix", words{"--preset", "smoke", "--device", "cpu", "--threads", "1", "--methods", "btx",
                                    "--without-controls", "--compare", list, "--out", run.string()} +
                                  three_domains(work, 20000));
  const json results = json::parse(read(run / "results.json"));
  check_results(results, words{"seed"} + experts +
                             words{"btx-untrained", "btx", "btx-switch_top_1-1+none",
                                   "btx-sigmoid_top_k-2+loss_free_bias", "btx-soft-4"});
  // Every expert for every token is balance, and the bias was moved.
  CHECK(row_of(results, "btx-soft-4")["max_violation"].get<double>() == 0);
  CHECK(row_of(results, "btx-soft-4")["parameters"]["active"] == row_of(results, "btx-soft-4")["parameters"]["total"]);
  const graft::safetensors_file weights(run / "models" / "btx-sigmoid_top_k-2+loss_free_bias" / "model.safetensors");
  std::vector<float> bias(4);
  const graft::stored_tensor* tensor = weights.find("model.layers.0.block_sparse_moe.selection_bias.weight");
  REQUIRE(tensor != nullptr);
  weights.read(*tensor, bias.data());
  CHECK(std::any_of(bias.begin(), bias.end(), [](float b) { return b != 0; }));
  for (const float b : bias) CHECK(std::abs(b) <= 20.01e-3f);  // twenty steps of 0.001
}

TEST_CASE("a branch that fails leaves the others alone", "[slow]") {
  const work_folder work;
  const words command = words{"--preset",
                              "smoke",
                              "--device",
                              "cpu",
                              "--threads",
                              "1",
                              "--methods",
                              "soup",
                              "--without-controls",
                              "--out",
                              (work / "run").string()} +
                        three_domains(work, 20000);
  const fs::path checkpoint = work / "run" / "models" / "expert-code" / "training" / "checkpoint.safetensors";
  write(checkpoint, "no checkpoint");
  const auto check_missing = [&](const outcome& result) {
    INFO(result.err);
    CHECK(result.status == 1);
    CHECK(result.out.empty());
    CHECK(result.err.find("branch_train_mix: expert-code is missing: ") != std::string::npos);
    CHECK(result.err.find(checkpoint.string() + ": ") != std::string::npos);
    CHECK(result.sentence().starts_with("branch_train_mix: 2 of 3 branches are done; "));
    CHECK(result.sentence().find("the same command") != std::string::npos);
    for (const char* name : {"expert-prose", "expert-digits"})
      CHECK(fs::exists(work / "run" / "models" / name / "config.json"));
    for (const char* name : {"expert-code", "soup"}) CHECK(!fs::exists(work / "run" / "models" / name / "config.json"));
    CHECK(!fs::exists(work / "run" / "results.json"));
  };
  check_missing(run("branch_train_mix", command));
  check_missing(run("branch_train_mix", command + words{"--jobs", "2"}));

  fs::remove(checkpoint);
  succeed("branch_train_mix", command);
  check_results(json::parse(read(work / "run" / "results.json")), mixing_rows);
}

}  // namespace workflow_tests
