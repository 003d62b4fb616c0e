// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Programs as several ranks, started as torchrun starts them: on the CPU, two processes over TCP.

#include <cmath>
#include <set>

#include <graft/backend/tcp.hpp>

#include "common/processes.hpp"
#include "program.hpp"

namespace ranks_tests {

using namespace program_test;
using nlohmann::json;

namespace {

// What torchrun sets for a rank.
struct rank_of {
  int rank, size, port;
  void operator()() const {
    const auto set = [](const char* name, const std::string& value) { setenv(name, value.c_str(), 1); };
    set("RANK", std::to_string(rank));
    set("LOCAL_RANK", std::to_string(rank));
    set("WORLD_SIZE", std::to_string(size));
    set("MASTER_ADDR", "127.0.0.1");
    set("GRAFT_MASTER_PORT", std::to_string(port));
  }
};
int free_port() { return graft::detail::port_of(graft::detail::tcp_listen("127.0.0.1", 0)); }

// Both ranks of a command to their end.
std::vector<outcome> run_two(const std::string& program, const words& arguments, const words& more_of_rank_1 = {}) {
  const int port = free_port();
  process first(program, arguments, rank_of{0, 2, port}),
      second(program, arguments + more_of_rank_1, rank_of{1, 2, port});
  std::vector<outcome> both{first.wait()};
  both.push_back(second.wait());
  return both;
}
outcome succeed_with_two(const std::string& program, const words& arguments) {
  const std::vector<outcome> both = run_two(program, arguments);
  for (const outcome& one : both) {
    INFO(program << " said: " << one.err);
    REQUIRE(one.signal == 0);
    REQUIRE(one.status == 0);
  }
  CHECK(both[1].out == "");
  CHECK(both[1].err == "");
  return both[0];
}

words pretraining(const work_folder& work, const std::string& name, int steps, const words& more = {}) {
  if (!fs::exists(work / "prose.txt")) write(work / "prose.txt", prose(8000));
  return changed(words{"--out", (work / name).string(), "--domain", "prose=" + (work / "prose.txt").string(),
                       "--precision", "fp32"} +
                     tiny_training(steps) + tiny_shape(),
                 more);
}
std::vector<double> losses(const fs::path& model) {
  std::vector<double> all;
  for (const json& line : metrics_without_time(model)) all.push_back(line["loss"].get<double>());
  return all;
}

}  // namespace

TEST_CASE("two ranks learn what one process learns") {
  const work_folder work;
  succeed("pretrain", pretraining(work, "one", 12));
  const outcome said = succeed_with_two("pretrain", pretraining(work, "two", 12));
  CHECK(said.out == (work / "two").string() + ": trained on 768 tokens\n");
  succeed_with_two("pretrain", pretraining(work, "again", 12));
  CHECK(read(work / "again" / "model.safetensors") == read(work / "two" / "model.safetensors"));
  CHECK(left_behind(work / "two") == words{});

  // 64 tokens a step in another order of summation: a gradient is off by about 64 u = 4e-6 of its size, an update by as
  // much of the learning rate, the loss by less than that times the steps. Half of the batch would show.
  const std::vector<double> one = losses(work / "one"), two = losses(work / "two");
  REQUIRE(one.size() == 12);
  REQUIRE(two.size() == 12);
  for (std::size_t step = 0; step < 12; ++step) CHECK(std::abs(one[step] - two[step]) <= 5e-5);
  succeed("pretrain", pretraining(work, "half", 12, {"--sequences", "2"}));
  CHECK(std::abs(one[11] - losses(work / "half")[11]) > 1e-3);

  CHECK(succeed_with_two("pretrain", pretraining(work, "two", 12)).err.find("is trained already") != std::string::npos);
  check_refused("pretrain", run("pretrain", pretraining(work, "two", 12)),
                {"holds the model of another run", "it has ranks=2, this run has ranks=1"});

  // A branch of it, by two as well.
  write(work / "code.txt", code(8000));
  succeed_with_two("branch", changed(words{"--from", (work / "two").string(), "--out", (work / "branch").string(),
                                           "--domain", "code=" + (work / "code.txt").string()},
                                     tiny_training(3)));
  CHECK(losses(work / "branch").size() == 3);
}

TEST_CASE("a rank that is killed ends the run, and the same command goes on") {
  const work_folder work;
  const words command = pretraining(work, "killed", 800, {"--checkpoint-seconds", "0"});
  const fs::path checkpoint = work / "killed" / "training" / "checkpoint.safetensors";
  for (const int victim : {1, 0}) {
    fs::remove(checkpoint);
    const int port = free_port();
    process first("pretrain", command, rank_of{0, 2, port}), second("pretrain", command, rank_of{1, 2, port});
    wait_for(checkpoint);
    (victim == 0 ? first : second).wait(SIGKILL);
    const outcome other = (victim == 0 ? second : first).wait();
    check_refused("pretrain", other, {"rank " + std::to_string(victim) + " is gone", victim == 0 ? "rank 1: " : ""});
    CHECK(!fs::exists(work / "killed" / "config.json"));
  }
  const words rest = changed(command, {"--checkpoint-seconds", "30"});
  CHECK(succeed_with_two("pretrain", rest).err.find("goes on after") != std::string::npos);
  succeed_with_two("pretrain", pretraining(work, "undisturbed", 800));
  CHECK(read(work / "killed" / "model.safetensors") == read(work / "undisturbed" / "model.safetensors"));
}

TEST_CASE("ranks that do not fit are refused") {
  const work_folder work;
  const auto odd = run_two("pretrain", pretraining(work, "odd", 2, {"--sequences", "3"}));
  for (const outcome& one : odd) check_refused("pretrain", one, {"expected ranks to divide sequences, got ranks=2"});

  // Another command on one of them. Rank 0 would wait for the right one.
  const int port = free_port();
  process leader("pretrain", pretraining(work, "odd", 2), rank_of{0, 2, port});
  check_refused("pretrain", run("pretrain", pretraining(work, "odd", 2, {"--seed", "1"}), rank_of{1, 2, port}),
                {"rank 1: ", "rank 0 runs another command"});
  leader.wait(SIGKILL);

  check_refused("pretrain", run("pretrain", pretraining(work, "odd", 2), [] { setenv("RANK", "1", 1); }),
                {"RANK, WORLD_SIZE and LOCAL_RANK together, got no WORLD_SIZE"});
  check_refused("mix",
                run("mix", {"--out", (work / "mixed").string(), "a=" + (work / "odd").string()}, rank_of{0, 2, 1}),
                {"expected one process, got 2 ranks of torchrun"});
  const auto jobs = run_two("branch_train_mix",
                            {"--preset", "smoke", "--device", "cpu", "--jobs", "2", "--out", (work / "run").string()});
  for (const outcome& one : jobs) check_refused("branch_train_mix", one, {"--jobs: expected one process, got 2 ranks"});
  CHECK(!fs::exists(work / "odd" / "config.json"));
  CHECK(!fs::exists(work / "run"));
}

// --jobs: each branch that runs has a place of its own, by which it gets a device.
TEST_CASE("processes side by side have different places") {
  const work_folder work;
  std::vector<examples::child_command> commands;
  for (int i = 0; i < 5; ++i)
    commands.push_back(
        {"command " + std::to_string(i),
         {"/bin/sh", "-c", "mkdir \"$1\" && sleep 0.02 && rmdir \"$1\" && basename \"$1\"", "sh", "place"},
         work / ("log" + std::to_string(i))});
  std::set<std::string> places;
  examples::run_processes(
      commands, 2,
      [&](const examples::child_command& command, int status) {
        CHECK(status == 0);  // no two of one place at a time
        CHECK(command.words.back() == "place");
        places.insert(read(command.log));
      },
      [&](examples::child_command& command, int place) {
        command.words.back() = (work / std::to_string(place)).string();
      });
  CHECK(places == std::set<std::string>{"0\n", "1\n"});
}

TEST_CASE("two ranks do the whole workflow", "[slow]") {
  const work_folder work;
  const words command = words{"--preset",
                              "smoke",
                              "--device",
                              "cpu",
                              "--threads",
                              "1",
                              "--without-controls",
                              "--out",
                              (work / "run").string()} +
                        three_domains(work, 20000);
  const outcome said = succeed_with_two("branch_train_mix", command);
  const json results = json::parse(read(work / "run" / "results.json"));
  CHECK(said.out.find("btx") != std::string::npos);
  for (const char* const name : {"seed", "expert-code", "soup", "btx"}) {
    CAPTURE(name);
    CHECK(results.dump().find(name) != std::string::npos);
    CHECK(fs::exists(work / "run" / "models" / name / "config.json"));
  }
  CHECK(left_behind(work / "run") == words{});
}

}  // namespace ranks_tests
