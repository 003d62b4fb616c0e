// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Bad input: one sentence that names the file, the value and what was expected, exit status 1, and nothing
// half-written.

#include <sched.h>
#include <sys/mount.h>

#include <graft/mix/model_directories.hpp>

#include "program.hpp"

namespace bad_input_tests {

using namespace program_test;

namespace {

words pretrain_in(const fs::path& out) { return words{"--out", out.string()} + tiny_training(2) + tiny_shape(); }

// Programs that read a model, each with one command for it.
struct reader {
  std::string program;
  words command;
};
std::vector<reader> readers(const work_folder& work, const fs::path& model) {
  const words domain{"--domain", "prose=" + (work / "prose.txt").string()};
  return {
      {"generate", {"--model", model.string(), "--device", "cpu", "--prompt", "The"}},
      {"mix", {"--recipe", "soup", "--out", (work / "out").string(), "a=" + model.string()}},
      {"branch", words{"--from", model.string(), "--out", (work / "out-branch").string()} + domain + tiny_training(2)}};
}

void check_unreadable(const work_folder& work, const fs::path& model, const words& parts) {
  for (const reader& one : readers(work, model)) {
    check_refused(one.program, run(one.program, one.command), parts);
    CHECK(!fs::exists(work / "out"));
    CHECK(!fs::exists(work / "out-branch" / "config.json"));
  }
}

}  // namespace

TEST_CASE("domains that cannot be trained on are refused before anything is written") {
  const work_folder work;
  write(work / "good.txt", prose(8000));
  write(work / "empty.txt", "");
  fs::create_directories(work / "nothing");
  write(work / "empties" / "a.txt", "");
  std::string binary(5000, '\0');
  for (std::size_t i = 0; i < binary.size(); ++i) binary[i] = static_cast<char>(i * 7 % 256);
  write(work / "binaries" / "a.o", binary);
  write(work / "binaries" / "b.o", binary + "x");
  const auto domain = [&](const std::string& name) { return "bad=" + (work / name).string(); };
  const std::vector<std::pair<words, words>> cases = {
      {{domain("missing")}, {"domain 'bad'", (work / "missing").string(), "expected a file or folder", "No such file"}},
      {{domain("empty.txt")}, {(work / "empty.txt").string(), "expected text or tokens", "empty file"}},
      {{domain("nothing")}, {(work / "nothing").string(), "expected files of text or tokens", "without any"}},
      {{domain("empties")}, {(work / "empties").string(), "expected files of text or tokens", "1 empty file"}},
      {{domain("binaries")}, {(work / "binaries").string(), "expected text", "2 binary files"}},
      {{"prose"}, {"--domain: expected NAME=PATH, got 'prose'"}},
      {{"=" + (work / "good.txt").string()}, {"--domain: expected NAME=PATH, got '="}},
      {{"prose="}, {"--domain: expected NAME=PATH, got 'prose='"}},
      {{"a/b=" + (work / "good.txt").string()}, {"domain 'a/b'", "expected a name of letters"}},
      {{"average=" + (work / "good.txt").string()}, {"expected another name than average"}},
      {{"good=" + (work / "good.txt").string(), domain("missing")}, {(work / "missing").string()}},
      {{"good=" + (work / "good.txt").string(), "good=" + (work / "good.txt").string()},
       {"expected domains of different names, got good twice"}},
  };
  for (const auto& [domains, parts] : cases) {
    words flags;
    for (const std::string& text : domains) flags = flags + words{"--domain", text};
    CAPTURE(domains);
    const outcome result = run("pretrain", pretrain_in(work / "out") + flags);
    check_refused("pretrain", result, parts);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    CHECK(!fs::exists(work / "out"));
    const outcome all = run("branch_train_mix",
                            words{"--preset", "smoke", "--device", "cpu", "--out", (work / "out").string()} + flags);
    check_refused("branch_train_mix", all, parts);
    CHECK(!fs::exists(work / "out"));
  }
}

TEST_CASE("too little text is refused with the numbers") {
  const work_folder work;
  write(work / "short.txt", "Too short.\n\nBy far.\n");
  write(work / "short" / "a.txt", "To be short.");
  write(work / "short" / "b.txt", "To be shorter.");
  const outcome one =
      run("pretrain", pretrain_in(work / "out") + words{"--domain", "short=" + (work / "short.txt").string()});
  check_refused("pretrain", one,
                {"domain 'short'", (work / "short.txt").string(), "at least two different documents", "found 1"});
  const outcome two =
      run("pretrain", pretrain_in(work / "out") + words{"--domain", "short=" + (work / "short").string()});
  check_refused("pretrain", two,
                {"domain 'short'", (work / "short").string(), "expected at least 17 tokens to train on", "window of 16",
                 "found 1"});
  CHECK(!fs::exists(work / "out" / "config.json"));
}

TEST_CASE("unknown words are refused") {
  const work_folder work;
  write(work / "good.txt", prose(8000));
  const words good{"--out", (work / "out").string(), "--domain", "good=" + (work / "good.txt").string()};
  const auto refused = [&](const words& flags, const words& parts) {
    check_refused("branch_train_mix", run("branch_train_mix", good + flags), parts);
    CHECK(!fs::exists(work / "out"));
  };
  refused({"--preset", "huge"}, {"--preset: expected smoke, quick or full, got huge"});
  refused({"--precision", "fp8"}, {"--precision: expected bf16 or fp32, got fp8"});
  refused({"--device", "tpu"}, {"--device: expected auto, cpu, cuda or cuda:N, got tpu"});
  refused({"--device", "cuda:first"}, {"--device: expected auto, cpu, cuda or cuda:N, got cuda:first"});
  refused({"--methods", "soup,stew"}, {"--methods", "stew"});
  refused({"--general", "bad"}, {"--general", "bad"});
  refused({"--general", "good"}, {"expected at least one domain with a branch"});
  refused({"--without-seed"}, {"--experts-per-token: expected at most 1", "got 2"});
  check_refused(
      "branch_train_mix",
      run("branch_train_mix", {"--out", (work / "out").string(), "--domain", "seed=" + (work / "good.txt").string()}),
      {"expected another name than seed"});
  CHECK(!fs::exists(work / "out"));
  if (!fs::exists("/dev/nvidiactl"))
    for (const char* const device : {"cuda", "cuda:1"})
      refused({"--device", device}, {std::string("--device ") + device + ":", "use --device cpu"});

  const auto refused_shape = [&](const words& flags, const words& parts) {
    check_refused("pretrain", run("pretrain", changed(good + tiny_training(2) + tiny_shape(), flags)), parts);
    CHECK(!fs::exists(work / "out"));
  };
  refused_shape({"--width", "0"}, {"every size must be positive", "width=0"});
  refused_shape({"--head-dim", "7"}, {"even head_dim, got 7"});
  refused_shape({"--kv-heads", "3"}, {"heads=2, kv_heads=3"});
  refused_shape({"--decay", "steep"}, {"--decay: expected one of constant,cosine,linear, got steep"});
  refused_shape({"--threads", "-1"}, {"--threads: expected a number of at least 0, got -1"});
}

TEST_CASE("options that nothing would read are refused") {
  const work_folder work;
  write(work / "good.txt", prose(8000));
  const words good{"--preset", "smoke",
                   "--device", "cpu",
                   "--out",    (work / "out").string(),
                   "--domain", "good=" + (work / "good.txt").string()};
  const auto refused = [&](const words& flags, const words& parts) {
    check_refused("branch_train_mix", run("branch_train_mix", good + flags), parts);
    CHECK(!fs::exists(work / "out"));
  };
  refused({"--methods", "soup", "--layout", "capacity"}, {"--layout", "expected a mixture", "without btx"});
  refused({"--methods", "soup", "--compare", "top_k/1"}, {"--compare: expected btx among the --methods"});
  refused({"--hub", "good"}, {"--hub", "expected bts among the --methods"});
  refused({"--mix-training", "adapters"}, {"--mix-training adapters", "router top_k with the layout routed"});
  refused({"--precision", "fp32", "--compare", "null_top_k/2"}, {"in fp32", "got null_top_k/2"});
  refused({"--router", "switch_top_1"}, {"switch_top_1 is compiled for --experts-per-token 1", "got 2"});
  refused({"--balancer", "none,z_loss"}, {"--balancer: expected none alone", "none, z_loss"});
  refused({"--policy-option", "balancer.btx_loss.coefficient=0.1"}, {"balancers switch_loss, z_loss", "btx_loss"});
  refused({"--policy-option", "router.gate.stddev=nan"}, {"expected a finite number", "router.gate.stddev", "nan"});

  const fs::path seed = tiny_seed(work);
  const words models{"--out", (work / "out").string(), "a=" + seed.string(), "b=" + seed.string()};
  const words soup = words{"--recipe", "soup"} + models;
  check_refused("mix", run("mix", soup + words{"--router", "top_k"}), {"expected a mixture, got a soup"});
  check_refused("mix", run("mix", soup + words{"--experts-per-token", "2"}), {"expected a mixture, got a soup"});
  check_refused("forest", run("forest", models + words{"--routing", "--kept", "1"}), {"--kept excludes --routing"});
  check_refused("branch",
                run("branch", words{"--from", seed.string(), "--out", (work / "out").string(), "--domain",
                                    "good=" + (work / "good.txt").string(), "--router", "top_k"} +
                                  tiny_training(2)),
                {"expected a mixture, got the dense model " + seed.string()});
  check_refused("cost_sheet", run("cost_sheet", {"--rank", "4", seed.string()}), {"--rank requires --method"});
  CHECK(!fs::exists(work / "out"));
}

TEST_CASE("damaged models are refused by every program that reads one") {
  const work_folder work;
  const fs::path good = tiny_seed(work), model = work / "model", weights = model / "model.safetensors";
  const auto fresh = [&] {
    fs::remove_all(model);
    fs::copy(good, model, fs::copy_options::recursive);
  };
  const words at_weights{weights.string()};

  check_unreadable(work, work / "missing", {(work / "missing").string(), "expected a model directory"});
  fresh(), fs::remove(model / "config.json");
  check_unreadable(work, model, {model.string(), "no config.json"});
  fresh(), fs::remove(weights);
  check_unreadable(work, model, {model.string(), "model.safetensors"});
  fresh(), fs::resize_file(weights, fs::file_size(weights) - 10);
  check_unreadable(work, model, at_weights);
  fresh(), fs::resize_file(weights, 20);
  check_unreadable(work, model, at_weights);
  fresh(), fs::resize_file(weights, fs::file_size(weights) + 1);
  check_unreadable(work, model, at_weights);
  fresh(), replace_in(weights, "\"F32\"", "\"F64\"");
  check_unreadable(work, model, at_weights);
  fresh(), replace_in(weights, "model.norm.weight", "model.norm.wright");
  check_unreadable(work, model, {model.string(), "model.norm.weight", "missing", "model.norm.wright", "left over"});

  fresh(), replace_in(model / "config.json", "\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2");
  check_unreadable(work, model, {(model / "config.json").string(), "num_hidden_layers is 2", "1 layer"});
  fresh(), replace_in(model / "config.json", "\"hidden_size\": 16", "\"hidden_size\": 24");
  check_unreadable(work, model, {"hidden_size", "24", "16"});
  fresh(), replace_in(model / "config.json", "\"intermediate_size\": 32", "\"intermediate_size\": \"wide\"");
  check_unreadable(work, model, {(model / "config.json").string(), "intermediate_size", "wide"});
  fresh(), write(model / "config.json", "{");
  check_unreadable(work, model, {(model / "config.json").string(), "expected JSON"});

  fresh(), replace_in(model / "graft.json", "\"kind\": \"dense\"", "\"kind\": \"dense\", \"mood\": \"good\"");
  check_unreadable(work, model, {(model / "graft.json").string(), "unknown key \"mood\"", "good"});
  fresh(), replace_in(model / "graft.json", "\"kind\": \"dense\"", "\"kind\": \"moe\"");
  check_unreadable(work, model, {(model / "graft.json").string(), "moe", "0 experts"});
  fresh(), replace_in(model / "graft.json", "\"train_tokens\": 192", "\"train_tokens\": \"many\"");
  check_refused("mix", run("mix", {"--recipe", "soup", "--out", (work / "out").string(), "a=" + model.string()}),
                {(model / "graft.json").string(), "train_tokens", "expected", "a number", "many"});
  fresh();
  for (const reader& one : readers(work, model)) CHECK(run(one.program, one.command).status == 0);  // the control
}

TEST_CASE("prompts and held-out text need a model of the byte tokenizer") {
  const work_folder work;
  const fs::path seed = tiny_seed(work);
  const words generate{"--model", seed.string(), "--prompt", "The", "--device", "cpu"};
  const words evaluate{
      "--data",     (work / "data").string(), "--device", "cpu", "--domain", "prose=" + (work / "prose.txt").string(),
      seed.string()};
  const words branch = words{"--from",   seed.string(),
                             "--out",    (work / "out").string(),
                             "--domain", "prose=" + (work / "prose.txt").string()} +
                       tiny_training(2);
  replace_in(seed / "graft.json", "\"kind\": \"byte\"", "\"kind\": \"sentencepiece\"");
  fs::remove(seed / "tokenizer.json");  // what tells the tokenizer where there is no graft.json
  for (const words& parts :
       {words{seed.string(), "byte tokenizer", "sentencepiece"}, words{seed.string(), "byte tokenizer", "unknown"}}) {
    check_refused("generate", run("generate", generate), parts);
    check_refused("evaluate", run("evaluate", evaluate), parts);
    check_refused("branch", run("branch", branch), parts);
    CHECK(!fs::exists(work / "out"));
    fs::remove(seed / "graft.json");
  }
}

TEST_CASE("models that cannot be mixed are refused with both values") {
  const work_folder work;
  const fs::path seed = tiny_seed(work), wide = tiny_seed(work, "wide", {"--hidden", "48"}), spoken = work / "spoken",
                 large = work / "large";
  const fs::path branch = tiny_branch(work, seed, "code", code(8000));
  fs::copy(seed, spoken, fs::copy_options::recursive);
  replace_in(spoken / "graft.json", "\"kind\": \"byte\"", "\"kind\": \"sentencepiece\"");
  graft::host_model larger = graft::load_host_model(seed);
  larger.info.config.shape.vocabulary += 32;
  larger.layout = graft::layout_of(larger.info.config.shape);
  larger.values.assign(static_cast<std::size_t>(larger.layout.size), 0.5f);
  graft::save_model(large, larger.info.config, larger.layout, larger.values.data(), *larger.info.card);

  const fs::path out = work / "out";
  const auto mix = [&](const words& models) { return run("mix", words{"--out", out.string()} + models); };
  const auto pair = [&](const fs::path& other) { return mix({"a=" + seed.string(), "b=" + other.string()}); };
  check_refused("mix", mix({"--recipe", "soup", "a=" + seed.string(), "b=" + wide.string()}),
                {seed.string(), wide.string(), "hidden width", "32", "48"});
  check_refused("mix", pair(spoken), {seed.string(), spoken.string(), "tokenizer", "byte", "sentencepiece"});
  check_refused("mix", pair(large), {seed.string(), large.string(), "vocabulary", "288", "320"});
  check_refused("mix", mix({"a=" + seed.string(), "a=" + branch.string()}), {"different names, got a twice"});
  check_refused("mix", mix({"a=" + seed.string()}), {"experts_per_token=2", "experts=1"});
  check_refused("mix", mix({"a=" + seed.string(), "b=" + branch.string(), "--weights", "1,2,3"}),
                {"one weight for each of 2 models, got 3"});
  check_refused("mix", mix({seed.string()}), {"expected NAME=PATH", seed.string()});
  CHECK(!fs::exists(out));
}

TEST_CASE("the model or checkpoint of another run is not touched") {
  const work_folder work;
  const fs::path seed = tiny_seed(work);
  const std::string bits = read(seed / "model.safetensors");
  const words again = words{"--out", seed.string(), "--domain", "prose=" + (work / "prose.txt").string()} +
                      tiny_training(3) + tiny_shape();
  check_refused("pretrain", run("pretrain", again + words{"--seed", "1"}),
                {seed.string(), "holds the model of another run"});
  check_refused("pretrain", run("pretrain", again + words{"--learning-rate", "0.1"}),
                {seed.string(), "holds the model of another run"});
  const fs::path branch = tiny_branch(work, seed, "code", code(8000));
  check_refused("mix", run("mix", {"--recipe", "soup", "--out", seed.string(), "a=" + branch.string()}),
                {seed.string(), "holds another model"});
  CHECK(read(seed / "model.safetensors") == bits);
  succeed("pretrain", again);

  // A run that was stopped, started again with other options; and a branch that was stopped, its seed now another one.
  const words domain{"--domain", "prose=" + (work / "prose.txt").string(), "--checkpoint-seconds", "0"};
  const auto stop = [&](const std::string& program, const words& command, const fs::path& out) {
    process first(program, command);
    const fs::path checkpoint = out / "training" / "checkpoint.safetensors";
    wait_for(checkpoint);
    first.wait(SIGKILL);
    return checkpoint;
  };
  const fs::path out = work / "stopped", later = work / "later";
  const words command = words{"--out", out.string()} + domain + tiny_training(100000) + tiny_shape();
  const fs::path checkpoint = stop("pretrain", command, out);
  check_refused("pretrain", run("pretrain", command + words{"--weight-decay", "0.5"}),
                {checkpoint.string(), "another run", "weight_decay"});

  const words branch_command = words{"--from", seed.string(), "--out", later.string()} + domain + tiny_training(100000);
  const fs::path branch_checkpoint = stop("branch", branch_command, later);
  fs::remove_all(seed);
  tiny_seed(work, "seed", {"--seed", "5"});
  check_refused("branch", run("branch", branch_command), {branch_checkpoint.string(), "another run", "start"});
}

TEST_CASE("a place that cannot be written is named") {
  const work_folder work;
  write(work / "file", "no folder");
  write(work / "prose.txt", prose(8000));
  const fs::path out = work / "file" / "model";
  check_refused("pretrain",
                run("pretrain", pretrain_in(out) + words{"--domain", "prose=" + (work / "prose.txt").string()}),
                {(work / "file").string(), "Not a directory"});
  const fs::path seed = tiny_seed(work);
  check_refused("mix", run("mix", {"--recipe", "soup", "--out", out.string(), "a=" + seed.string()}),
                {(work / "file").string()});
  check_refused("evaluate",
                run("evaluate", {"--data", out.string(), "--device", "cpu", "--domain",
                                 "prose=" + (work / "prose.txt").string(), seed.string()}),
                {(work / "file").string(), "Not a directory"});
  CHECK(read(work / "file") == "no folder");
}

TEST_CASE("a full disk stops a run, which goes on when there is room") {
  const work_folder work;
  const fs::path reference = tiny_seed(work), out = work / "out";
  const words command = words{"--out", out.string(), "--domain", "prose=" + (work / "prose.txt").string()} +
                        tiny_training(3) + tiny_shape();
  const rlim_t weights = fs::file_size(reference / "model.safetensors");
  // No room for the tokens; for them, but not for the model; for the model, but not for a checkpoint of three times its
  // size.
  REQUIRE(weights > 2 * fs::file_size(reference / "data" / "prose.train.bin"));
  for (const auto& [room, between_checkpoints] :
       std::vector<std::pair<rlim_t, std::string>>{{4096, "0"}, {weights / 2, "1000"}, {weights * 2, "0"}}) {
    CAPTURE(room);
    const auto limit = [room = room] {
      const rlimit most{room, room};
      setrlimit(RLIMIT_FSIZE, &most);
      std::signal(SIGXFSZ, SIG_IGN);
    };
    const outcome result = run("pretrain", command + words{"--checkpoint-seconds", between_checkpoints}, limit);
    check_refused("pretrain", result, {out.string(), "File too large"});
    CHECK(!fs::exists(out / "config.json"));
    CHECK(!fs::exists(out / "model.safetensors"));
    CHECK(left_behind(out) == words{});
  }

  // A real disk of 64 KiB, in a mount namespace of the program's own where that is allowed.
  const auto small_disk = [&work] {
    const std::string place = (work / "disk").string();
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", place.c_str(), "tmpfs", 0, "size=64k") != 0)
      _exit(76);
  };
  fs::create_directories(work / "disk");
  const outcome full =
      run("pretrain",
          words{"--out", (work / "disk" / "out").string(), "--domain", "prose=" + (work / "prose.txt").string()} +
              tiny_training(3) + tiny_shape(),
          small_disk);
  if (full.status != 76) check_refused("pretrain", full, {(work / "disk" / "out").string(), "No space left"});

  succeed("pretrain", command);
  CHECK(read(out / "model.safetensors") == read(reference / "model.safetensors"));
}

}  // namespace bad_input_tests
