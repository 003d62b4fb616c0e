// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// cost_sheet as a user runs it: table and JSON, one row a file or a method, folders, and refusals by name.

#include <algorithm>

#include "program.hpp"

namespace cost_sheet_tests {

using namespace program_test;
using nlohmann::json;

namespace {

const fs::path configs = fs::path(GRAFT_TEST_DATA_DIR) / "configs";

std::string file(const std::string& name) { return (configs / (name + ".json")).string(); }

words line_of(const std::string& table, const std::string& name) {
  std::istringstream text(table);
  for (std::string line; std::getline(text, line);) {
    std::istringstream cells(line);
    words all;
    for (std::string cell; cells >> cell;) all.push_back(cell);
    if (!all.empty() && all.front() == name) return all;
  }
  FAIL("no line of " << name << " in\n" << table);
  return {};
}

}  // namespace

TEST_CASE("cost_sheet prints a line for each model") {
  const outcome result = succeed("cost_sheet", {file("mixtral_8x7b"), file("olmoe_1b_7b"), file("deepseek_v3")});
  CHECK(result.err.empty());
  const words mixtral = line_of(result.out, "mixtral_8x7b"), olmoe = line_of(result.out, "olmoe_1b_7b");
  REQUIRE(mixtral.size() == 12);
  CHECK(words(mixtral.begin() + 1, mixtral.begin() + 3) == words{"46.7B", "12.9B"});
  CHECK(words(olmoe.begin() + 1, olmoe.begin() + 3) == words{"6.9B", "1.3B"});
  CHECK(result.out.find("deepseek_v3: num_nextn_predict_layers = 1") != std::string::npos);

  const json sheet = json::parse(succeed("cost_sheet", {file("mixtral_8x7b"), "--json"}).out);
  REQUIRE(sheet["rows"].size() == 1);
  CHECK(sheet["rows"][0]["name"] == "mixtral_8x7b");
  CHECK(sheet["rows"][0]["parameters"] ==
        json{{"total", 46'702'792'704}, {"active", 12'879'925'248}, {"trained", 46'702'792'704}});
  CHECK(sheet["rows"][0]["flops_per_token"]["train"] == 3 * sheet["rows"][0]["flops_per_token"]["forward"].get<long>());
  const json& bytes = sheet["rows"][0]["bytes"];
  CHECK(bytes["weights"] == 2 * 46'702'792'704);
  CHECK(bytes["optimizer"] == 8 * 46'702'792'704);
  long sum = 0;
  for (const char* part : {"weights", "master_weights", "gradients", "optimizer", "activations"})
    sum += bytes[part].get<long>();
  CHECK(bytes["total"] == sum);
  // Half the positions and two sequences: the same number of tokens, cheaper attention.
  const json shorter =
      json::parse(succeed("cost_sheet", {"--sequences", "2", "--positions", "2048", file("mixtral_8x7b"), "--json"})
                      .out)["rows"][0];
  CHECK(shorter["bytes"] == bytes);
  CHECK(shorter["flops_per_token"]["forward"] < sheet["rows"][0]["flops_per_token"]["forward"]);
}

TEST_CASE("cost_sheet prints a line for each method over a seed and its branches") {
  const std::string seed = file("bts_seed");
  const outcome bts = succeed("cost_sheet", {seed, "--method", "bts"});
  const words line = line_of(bts.out, "bts");
  CHECK(words(line.begin() + 1, line.begin() + 4) == words{"11.0B", "11.0B", "264M"});
  // One file stands for four models; four files are four.
  CHECK(succeed("cost_sheet", {seed, seed, seed, seed, "--method", "bts"}).out == bts.out);
  CHECK(succeed("cost_sheet", {seed, "--method", "bts", "--models", "4"}).out == bts.out);
  CHECK(succeed("cost_sheet", {seed, "--method", "bts", "--models", "5"}).out != bts.out);

  const json all = json::parse(succeed("cost_sheet", {"--method", "all", "--json", seed}).out);
  words names;
  for (const json& row : all["rows"]) names.push_back(row["name"]);
  for (const char* name :
       {"seed", "soup", "btm", "btx", "btx-sample", "bam", "bam-adapters", "bts", "flexolmo", "lora"})
    CHECK(std::count(names.begin(), names.end(), name) == 1);
  const json two = json::parse(succeed("cost_sheet", {"--method", "soup", "--method", "routing", seed, "--json"}).out);
  REQUIRE(two["rows"].size() == 2);
  CHECK(two["rows"][0]["parameters"] == json{{"total", 2'689'723'392}, {"active", 2'689'723'392}, {"trained", 0}});
  CHECK(two["rows"][1]["parameters"]["trained"] == 15'360);

  // Stitches by number and topology; a model of fewer than four blocks has every method too.
  const auto trained = [&](const words& flags) {
    return json::parse(succeed("cost_sheet", words{seed, "--method", "bts", "--json"} + flags)
                           .out)["rows"][0]["parameters"]["trained"];
  };
  CHECK(trained({}) == 264'241'152);
  CHECK(trained({"--stitches", "10"}) == 660'602'880);
  CHECK(trained({"--topology", "stitch_at_end"}) == 66'060'288);
  CHECK(trained({"--topology", "all_to_all", "--stitches", "2"}) == 5 * 66'060'288);
  check_refused("cost_sheet", run("cost_sheet", {seed, "--method", "bts", "--topology", "ring"}),
                {"--topology", "hub_and_spokes", "ring"});
  const work_folder work;
  write(work / "config.json", read(seed));
  replace_in(work / "config.json", "\"num_hidden_layers\": 20", "\"num_hidden_layers\": 2");
  CHECK(line_of(succeed("cost_sheet", {(work / "config.json").string(), "--method", "all"}).out, "adapters").size() ==
        12);
}

TEST_CASE("cost_sheet takes folders and names them") {
  const work_folder work;
  write(work / "models/tiny/config.json", read(file("bts_seed")));
  CHECK(line_of(succeed("cost_sheet", {(work / "models/tiny").string()}).out, "tiny")[1] == "2.7B");
  CHECK(succeed("cost_sheet", {(work / "models/tiny/config.json").string()}).out ==
        succeed("cost_sheet", {(work / "models/tiny/").string()}).out);
}

TEST_CASE("cost_sheet refuses by name what it would have to guess") {
  const work_folder work;
  const fs::path made = work / "config.json";
  const auto refused = [&](const std::string& from, const std::string& to, const words& parts) {
    write(made, read(file("llama_2_7b")));
    replace_in(made, from, to);
    check_refused("cost_sheet", run("cost_sheet", {made.string()}), words{made.string()} + parts);
  };
  refused("\"llama\"", "\"mamba\"", {"model_type", "llama, mistral", "\"mamba\""});
  refused("\"pretraining_tp\": 1", "\"attn_temperature\": 1", {"unknown key", "\"attn_temperature\""});
  refused("\"hidden_size\": 4096,", "", {"\"hidden_size\"", "missing"});
  refused("\"hidden_size\": 4096", "\"hidden_size\": \"wide\"", {"\"hidden_size\"", "\"wide\""});
  refused("\"hidden_size\": 4096,", "\"hidden_size\": 4096", {"expected JSON"});
  check_refused("cost_sheet", run("cost_sheet", {(work / "none.json").string()}), {"none.json"});
  check_refused("cost_sheet", run("cost_sheet", {file("llama_2_7b"), "--positions", "5000"}), {"4096", "5000"});
  check_refused("cost_sheet", run("cost_sheet", {file("llama_2_7b"), file("bts_seed"), "--method", "btx"}),
                {"bts_seed.json", "btx", "vocabulary", "128000", "32000"});
  check_refused("cost_sheet", run("cost_sheet", {file("mixtral_8x7b"), "--method", "bam"}), {"bam", "8 experts"});
  check_refused("cost_sheet", run("cost_sheet", {file("bts_seed"), "--models", "3"}), {"--models", "--method"});
  check_refused("cost_sheet", run("cost_sheet", {file("bts_seed"), "--method", "stitch"}), {"--method", "stitch"});
  check_refused("cost_sheet", run("cost_sheet", {}), {"configs"});
}

}  // namespace cost_sheet_tests
