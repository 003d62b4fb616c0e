// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The whole family on one table, and the programs for what is put together of whole models: what they write, that what
// is frozen stays, and what they refuse.

#include <cmath>

#include <graft/core/transformer_shape.hpp>
#include <graft/io/assembly.hpp>
#include <graft/io/text_source.hpp>

#include "program.hpp"

namespace family_tests {

using namespace program_test;
using nlohmann::json;

namespace {

const words trained_rows{
    "dense-mix-tokens", "expert-routing", "upcycling", "btx-sample", "btx", "btx-soft", "bam", "bam-adapters", "bts"};
const words family_rows =
    words{"seed",      "expert-prose", "expert-code",   "expert-digits", "dense-all-tokens", "soup",     "btm",
          "btm-top-1", "btm-top-2",    "btx-untrained", "bts-untrained", "bts-top-1",        "bts-top-2"} +
    trained_rows;

const json& row_of(const json& results, const std::string& name) {
  for (const json& row : results["rows"])
    if (row["name"] == name) return row;
  FAIL("no row " << name);
  return results;
}
std::int64_t count_of(const json& results, const std::string& row, const char* which) {
  return row_of(results, row)["parameters"][which].get<std::int64_t>();
}

// Three models of the same seed, of 16 channels and one block, in work/seed, work/code and work/digits.
words three_members(const work_folder& work) {
  const fs::path seed = tiny_seed(work);
  tiny_branch(work, seed, "code", code(8000));
  tiny_branch(work, seed, "digits", digits(8000));
  words members;
  for (const char* name : {"seed", "code", "digits"}) members.push_back(name + ("=" + (work / name).string()));
  return members;
}
words some_text(const work_folder& work) {
  return {"--domain", "code=" + (work / "code.txt").string(), "--domain", "digits=" + (work / "digits.txt").string()};
}

std::string generated(const fs::path& model, const words& more) {
  return succeed("generate", words{"--model", model.string(), "--prompt", "int ", "--tokens", "24", "--threads", "1",
                                   "--device", "cpu"} +
                                 more)
      .out;
}

}  // namespace

TEST_CASE("all methods of the family on one table", "[slow]") {
  const work_folder work;
  write(work / "cross.txt", code(6000, 5) + prose(6000, 6));
  const fs::path run = work / "run";
  const words command = words{"--preset", "smoke",     "--device", "cpu",     "--threads",
                              "2",        "--methods", "all",      "--cross", "cross=" + (work / "cross.txt").string(),
                              "--out",    run.string()} +
                        three_domains(work, 20000);
  const outcome result = succeed("branch_train_mix", command);
  const json results = json::parse(read(run / "results.json"));
  CHECK(results["cross"] == "cross");
  words names;
  for (const json& row : results["rows"]) {
    CAPTURE(row.dump());
    names.push_back(row["name"]);
    CHECK(row["bits_per_byte"].size() == 5);  // three domains, their average, the cross set
    for (const json& bits : row["bits_per_byte"]) {
      CHECK(std::isfinite(bits.get<double>()));
      CHECK((bits.get<double>() > 0 && bits.get<double>() < 16));
    }
    CHECK(row["evaluation_tokens_per_second"].get<double>() > 0);
    CHECK(row["peak_memory_bytes"].get<double>() > 0);
    CHECK(row["parameters"]["total"] >= row["parameters"]["active"]);
  }
  words sorted = names, expected = family_rows;
  std::sort(sorted.begin(), sorted.end());
  std::sort(expected.begin(), expected.end());
  CHECK(sorted == expected);
  CHECK(result.out.find("nan") == std::string::npos);

  // All that is trained sees the same tokens more than what it starts from.
  const auto tokens = [&](const std::string& name, const char* key) {
    return row_of(results, name)[key].get<std::int64_t>();
  };
  const std::int64_t seed = tokens("seed", "train_tokens"), expert = tokens("expert-code", "train_tokens") - seed,
                     mix = tokens("dense-mix-tokens", "train_tokens") - seed;
  for (const std::string& name : trained_rows) {
    CAPTURE(name);
    const bool from_seed = name == "dense-mix-tokens" || name == "upcycling";
    CHECK(tokens(name, "train_tokens") == seed + (from_seed ? 0 : 3 * expert) + mix);
    CHECK(tokens(name, "critical_path_tokens") == seed + (from_seed ? 0 : expert) + mix);
  }
  CHECK(tokens("btm", "critical_path_tokens") == seed + expert);

  // Width 64, 2 blocks, so 2 stitches; 4 members. A stitch out of the hub and one into it: 3 projections, 4 gates, of
  // which one that nothing reads.
  CHECK(count_of(results, "bts", "trained") == (2 * (3 + 4) - 1) * 64 * 64);
  CHECK(count_of(results, "bts", "total") == 4 * count_of(results, "seed", "total") + 2 * (3 + 4) * 64 * 64);
  CHECK(count_of(results, "bts-untrained", "trained") == 0);
  CHECK(count_of(results, "bts-top-1", "total") == count_of(results, "bts", "total") + 4 * 64);
  CHECK(count_of(results, "bts-top-1", "active") ==
        count_of(results, "bts-top-1", "total") - 2 * count_of(results, "seed", "total"));
  CHECK(count_of(results, "btm", "total") == 4 * count_of(results, "seed", "total"));
  CHECK(count_of(results, "btm", "trained") == 0);
  CHECK(count_of(results, "expert-routing", "trained") == 4 * 64);
  CHECK(count_of(results, "expert-routing", "active") == count_of(results, "seed", "total") + 4 * 64);
  CHECK(count_of(results, "upcycling", "total") == count_of(results, "btx", "total"));
  CHECK(count_of(results, "btx-soft", "active") == count_of(results, "btx-soft", "total"));
  CHECK(count_of(results, "bam", "total") > count_of(results, "btx", "total"));
  // Two routers and eight adapters a block, of two.
  CHECK(count_of(results, "bam-adapters", "trained") == 2 * (2 * 4 * 64 + 8 * 64 * 64));

  // Before training a stitched model is no better than all stitches allow, and training helps.
  const auto average = [&](const std::string& name) {
    return row_of(results, name)["bits_per_byte"]["average"].get<double>();
  };
  CHECK(average("bts") < average("bts-untrained"));

  // Every one of them writes.
  const std::string samples = read(run / "samples.txt");
  CHECK(graft::detail::invalid_utf8_bytes(samples) == 0);
  for (const std::string& name :
       words{"soup", "btm", "expert-routing", "upcycling", "btx", "bam", "bam-adapters", "bts"})
    CHECK(samples.find("=== " + name + "\n") != std::string::npos);
  CHECK(samples.find("(none: ") == std::string::npos);
  const std::string page = read(run / "report.html");
  for (const char* part : {"bts", "btm", "bam", "saturation"}) CHECK(page.find(part) != std::string::npos);
  CHECK(left_behind(run) == words{});

  // Again: nothing is trained or evaluated, and nothing changes.
  const auto before = contents(run);
  const outcome again = succeed("branch_train_mix", command);
  CHECK(again.err.find("tokens/s") == std::string::npos);
  const auto after = contents(run);
  CHECK(after.size() == before.size());
  for (const auto& [name, text] : before) {
    INFO(name);
    CHECK((after.count(name) == 1 && after.at(name) == text));
  }
}

TEST_CASE("domains that are discovered, and text of the cross set in the mix", "[slow]") {
  const work_folder work;
  write(work / "text" / "a.txt", prose(20000));
  write(work / "text" / "b.txt", code(20000));
  write(work / "cross.txt", code(6000, 5) + prose(6000, 6));
  const fs::path run = work / "run";
  succeed("branch_train_mix", {"--preset", "smoke", "--device", "cpu", "--threads", "2", "--methods", "btm,bts",
                               "--stitches", "1", "--discover", "2", (work / "text").string(), "--cross",
                               "cross=" + (work / "cross.txt").string(), "--cross-tokens", "--out", run.string()});
  const json results = json::parse(read(run / "results.json"));
  CHECK(results["domains"].get<words>() == words{"discovered-1", "discovered-2"});
  // One member for each cluster, without the seed, weighed by the text.
  CHECK(count_of(results, "c-btm", "total") == 2 * count_of(results, "seed", "total"));
  CHECK(count_of(results, "btm", "total") == 3 * count_of(results, "seed", "total"));
  for (const char* name : {"dense-mix-tokens", "bts"}) {
    const json &plain = row_of(results, name), &more = row_of(results, std::string(name) + "+cross");
    CHECK(plain["train_tokens"] == more["train_tokens"]);
    CHECK(plain["parameters"] == more["parameters"]);
    CHECK(plain["bits_per_byte"]["cross"] != more["bits_per_byte"]["cross"]);
  }
}

TEST_CASE("one method failing leaves the rows of others", "[slow]") {
  const work_folder work;
  const fs::path run = work / "run", checkpoint = run / "models" / "bts" / "training" / "checkpoint.safetensors";
  const words command = words{"--preset",  "smoke",    "--device",           "cpu",   "--threads", "1",
                              "--methods", "soup,bts", "--without-controls", "--out", run.string()} +
                        three_domains(work, 20000);
  write(checkpoint, "no checkpoint");
  const outcome result = program_test::run("branch_train_mix", command);
  INFO(result.err);
  CHECK(result.status == 1);
  CHECK(result.out.starts_with("bits per byte"));
  CHECK(result.err.find("branch_train_mix: bts is missing: " + checkpoint.string() + ": ") != std::string::npos);
  CHECK(result.sentence().find("the same command") != std::string::npos);
  CHECK(row_of(json::parse(read(run / "results.json")), "soup")["parameters"]["trained"] == 0);

  // The reason gone, and with the ablation: stitches of another number, not alternating, three other hubs.
  fs::remove(checkpoint);
  succeed("branch_train_mix", command + words{"--ablation", "bts"});
  const json ablation = json::parse(read(run / "ablation.json"));
  words names;
  for (const json& row : ablation["rows"]) names.push_back(row["name"]);
  CHECK(names ==
        words{"seed", "bts", "bts-stitches-1", "bts-into-hub", "bts-hub-prose", "bts-hub-code", "bts-hub-digits"});
}

TEST_CASE("stitch trains what stands between models that stay as they are") {
  const work_folder work;
  const words members = three_members(work);
  std::map<std::string, std::string> frozen;
  for (const char* name : {"seed", "code", "digits"}) frozen[name] = read(work / name / "model.safetensors");
  const fs::path out = work / "bts";
  const words command = words{"--out", out.string()} + tiny_training(4) + some_text(work) + members;
  succeed("stitch", command);
  for (const auto& [name, bits] : frozen) CHECK(read(work / name / "model.safetensors") == bits);
  const graft::assembly_info info = graft::load_assembly_info(out);
  CHECK(info.card.kind == "stitched");
  CHECK(info.card.members[1].domain == "code");
  // One block, so one stitch: 2 projections and 3 gates of 16 x 16.
  CHECK(graft::own_parameter_count(out) == 5 * 16 * 16);
  CHECK(info.card.provenance["trained_parameters"] == 5 * 16 * 16);

  // Found again; another hub is another run; a stopped one goes on to the same bits.
  const std::string bits = read(out / "model.safetensors");
  succeed("stitch", command);
  CHECK(read(out / "model.safetensors") == bits);
  check_refused("stitch", run("stitch", command + words{"--hub", "code"}),
                {out.string(), "holds the model of another run"});
  succeed("stitch", changed(command, {"--out", (work / "hub").string()}) + words{"--hub", "code"});
  CHECK(graft::load_assembly_info(work / "hub").card.members[0].name == "code");

  // Killed on the way, it ends with the bits of a run that was not.
  const words longer = changed(command, {"--steps", "200"}) + words{"--checkpoint-seconds", "0"};
  succeed("stitch", changed(longer, {"--out", (work / "whole").string()}));
  {
    process stopped("stitch", changed(longer, {"--out", (work / "stopped").string()}));
    wait_for(work / "stopped" / "training" / "checkpoint.safetensors");
    stopped.wait(SIGKILL);
  }
  CHECK(!fs::exists(work / "stopped" / "graft.json"));
  succeed("stitch", changed(longer, {"--out", (work / "stopped").string()}));
  CHECK(read(work / "stopped" / "model.safetensors") == read(work / "whole" / "model.safetensors"));
  CHECK(left_behind(work / "stopped") == words{});

  // What was stitched writes, and is trained and evaluated as any model is.
  CHECK(!generated(out, {}).empty());
  CHECK(generated(out, {"--temperature", "0"}) == generated(out, {"--temperature", "0", "--seed", "3"}));
  succeed("branch",
          words{"--from", out.string(), "--out", (work / "further").string()} + tiny_training(2) + some_text(work));
  CHECK(graft::load_assembly_info(work / "further").members.size() == 3);
  succeed("evaluate", words{"--data", (work / "data").string(), "--threads", "1", "--device", "cpu", "--json",
                            (work / "table.json").string()} +
                          some_text(work) + words{out.string(), (work / "further").string(), (work / "seed").string()});
  CHECK(json::parse(read(work / "table.json"))["rows"].size() == 3);
}

TEST_CASE("forest weighs models, with a prior from text, or routes a text to one") {
  const work_folder work;
  const words members = three_members(work);
  const fs::path all = work / "all", one = work / "one", cached = work / "cached", routed = work / "routed";
  const words text{"--domain", "code=" + (work / "code.txt").string()};
  succeed("forest", words{"--out", all.string()} + members);
  succeed("forest", words{"--out", one.string(), "--kept", "1"} + members);
  succeed("forest",
          words{"--out", cached.string(), "--prior", "cached", "--threads", "1", "--device", "cpu"} + text + members);
  succeed("forest", words{"--out", routed.string(), "--routing"} + tiny_training(3) + some_text(work) + members);
  const json prior = graft::load_assembly_info(cached).card.policy.options;
  CHECK(prior["prior_1"].get<double>() > prior["prior_2"].get<double>());  // code's text
  CHECK(std::abs(prior["prior_0"].get<double>() + prior["prior_1"].get<double>() + prior["prior_2"].get<double>() - 1) <
        1e-6);
  CHECK(graft::own_parameter_count(routed) == 3 * 16);
  succeed("evaluate", words{"--data", (work / "data").string(), "--threads", "1", "--device", "cpu", "--json",
                            (work / "table.json").string()} +
                          text +
                          words{all.string(), one.string(), cached.string(), routed.string(), (work / "code").string(),
                                (work / "digits").string()});
  const json table = json::parse(read(work / "table.json"));
  const auto bits = [&](const std::string& name) { return row_of(table, name)["bits_per_byte"]["code"].get<double>(); };
  CHECK(bits("all") < bits("digits"));
  CHECK(bits("one") != bits("all"));
  for (const fs::path& folder : {all, one, cached, routed}) CHECK(!generated(folder, {}).empty());

  // The same again is found, another forest is not written over it.
  succeed("forest", words{"--out", all.string()} + members);
  check_refused("forest", run("forest", words{"--out", all.string(), "--kept", "2"} + members),
                {all.string(), "holds another model"});
}

TEST_CASE("mix keeps attentions apart and copies a model's experts") {
  const work_folder work;
  const words members = three_members(work);
  const auto mix = [&](const std::string& name, const words& more) {
    succeed("mix", words{"--out", (work / name).string(), "--balancer", "none"} + more);
    return graft::load_model_info(work / name);
  };
  const graft::model_info bam = mix("bam", words{"--recipe", "bam", "--attention-adapters"} + members),
                          clones = mix("clones", {"--recipe", "upcycle", "--experts", "clones=3", members[0]});
  REQUIRE(bam.card->attention.has_value());
  CHECK(bam.card->attention->options["experts"] == 3);
  CHECK(bam.card->attention->options["adapters"] == true);
  CHECK(clones.config.shape.experts == 3);
  CHECK(!clones.card->attention);
  for (const char* name : {"bam", "clones"}) {
    succeed("branch",
            words{"--from", (work / name).string(), "--out", (work / (name + std::string("-more"))).string()} +
                tiny_training(2) + some_text(work));
    CHECK(!generated(work / (name + std::string("-more")), {}).empty());
  }
  // Clones whose weights sum to one are the model that they are copies of, up to rounding; the most likely bytes agree.
  CHECK(generated(work / "clones", {"--temperature", "0", "--precision", "fp32"}) ==
        generated(work / "seed", {"--temperature", "0", "--precision", "fp32"}));
  check_refused(
      "mix", run("mix", words{"--out", (work / "out").string(), "--recipe", "btx", "--attention-adapters"} + members),
      {"--attention-adapters", "bam", "btx"});
}

TEST_CASE("assemblies that cannot be are refused") {
  const work_folder work;
  const words members = three_members(work);
  const fs::path out = work / "out";
  const words training = tiny_training(1) + some_text(work), to{"--out", out.string()};
  const auto stitch = [&](const words& more) { return run("stitch", to + training + more); };
  check_refused("stitch", stitch(members + words{"--hub", "math"}), {"--hub", "seed, code, digits", "math"});
  check_refused("stitch", stitch(members + words{"--stitches", "3"}), {"stitches=3", "blocks=1"});
  check_refused("stitch", stitch(members + words{"--topology", "star"}), {"--topology", "star"});
  check_refused("stitch", stitch(members + words{"--topology", "pair"}), {"two members", "3"});
  check_refused("stitch", stitch({members[0]}), {"at least two members", "1"});
  check_refused("stitch", stitch({members[0], members[0]}), {"different names", "seed"});
  check_refused("stitch", run("stitch", to + tiny_training(1) + members), {"--domain", "--tokens", "neither"});
  check_refused("stitch", stitch({members[0], "gone=" + (work / "gone").string()}), {(work / "gone").string()});
  const fs::path wide = tiny_seed(work, "wide", {"--blocks", "2"});
  check_refused("stitch", stitch({members[0], "wide=" + wide.string()}), {"1 blocks", "2 blocks"});
  check_refused("forest", run("forest", to + words{"--kept", "4"} + members), {"kept", "3", "4"});
  check_refused("forest", run("forest", to + words{"--prior", "cached"} + members), {"--prior cached", "--domain"});
  check_refused("forest", run("forest", to + some_text(work) + members), {"--domain", "--routing"});
  CHECK(!fs::exists(out / "graft.json"));

  // A forest whose member was moved away, and one whose file was edited.
  succeed("forest", to + members);
  fs::rename(work / "code", work / "elsewhere");
  for (const char* program : {"generate", "branch"}) {
    const words command = program == std::string("generate")
                              ? words{"--model", out.string(), "--device", "cpu"}
                              : words{"--from", out.string(), "--out", (work / "more").string()} + training;
    check_refused(program, run(program, command),
                  {(out / "graft.json").string(), "\"code\"", (work / "code").string()});
  }
  fs::rename(work / "elsewhere", work / "code");
  check_refused("branch", run("branch", words{"--from", out.string(), "--out", (work / "more").string()} + training),
                {(out / "graft.json").string(), "nothing to train"});
  replace_in(out / "graft.json", "\"temperature\"", "\"heat\"");
  check_refused("generate", run("generate", {"--model", out.string(), "--device", "cpu"}),
                {(out / "graft.json").string(), "kept, temperature", "heat"});
  replace_in(out / "graft.json", "\"forest\"", "\"orchard\"");
  check_refused("generate", run("generate", {"--model", out.string(), "--device", "cpu"}),
                {(out / "graft.json").string(), "\"kind\"", "orchard"});
}

}  // namespace family_tests
