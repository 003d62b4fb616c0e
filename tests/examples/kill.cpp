// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Programs that are killed at any moment and started again with the same command end where an undisturbed run ends.

#include "program.hpp"

namespace kill_tests {

using namespace program_test;

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct disturbed {
  int kills = 0, resumes = 0;
};

// Runs a command until it is done; each attempt but the last is killed after a random part of `span` seconds.
disturbed run_with_kills(const std::string& program, const words& command, double span, int most_kills,
                         std::mt19937& random) {
  disturbed count;
  for (;;) {
    process attempt(program, command);
    outcome result;
    if (count.kills < most_kills) {
      std::this_thread::sleep_for(std::chrono::duration<double>(span * std::uniform_real_distribution<>(0, 1)(random)));
      result = attempt.wait(SIGKILL);
    } else {
      result = attempt.wait();
    }
    INFO(program << " said: " << result.err);
    if (result.err.find("goes on after") != std::string::npos) ++count.resumes;
    if (result.signal == SIGKILL) {
      ++count.kills;
      continue;
    }
    REQUIRE(result.status == 0);
    return count;
  }
}

}  // namespace

TEST_CASE("a training killed at ten random moments ends with the bits of an undisturbed one", "[slow]") {
  const work_folder work;
  const fs::path seed = tiny_seed(work);
  write(work / "code.txt", code(20000));
  const std::string program = GENERATE("pretrain", "branch");
  const words command = words{"--domain", "code=" + (work / "code.txt").string()} + tiny_training(120) +
                        (program == "pretrain" ? tiny_shape() : words{"--from", seed.string()});
  const fs::path reference = work / "undisturbed";
  const auto start = std::chrono::steady_clock::now();
  succeed(program, words{"--out", reference.string()} + command);
  const double span = seconds_since(start);
  const std::string bits = read(reference / "model.safetensors");
  const auto metrics = metrics_without_time(reference);
  REQUIRE(metrics.size() == 120);

  std::mt19937 random(20260101);
  disturbed all;
  // A kill before the first checkpoint starts anew: on to a life that was taken up again.
  for (int life = 0; (all.kills < 10 || all.resumes < 1) && life < 40; ++life) {
    const fs::path out = work / ("life" + std::to_string(life));
    const char* const between_checkpoints = life % 2 == 0 ? "0" : "0.02";
    // A checkpoint after every step makes the run longer, and so the moments to die in.
    const disturbed one = run_with_kills(
        program, words{"--out", out.string(), "--checkpoint-seconds", between_checkpoints} + command, span, 10, random);
    all.kills += one.kills;
    all.resumes += one.resumes;
    CHECK(read(out / "model.safetensors") == bits);
    CHECK(metrics_without_time(out) == metrics);
    CHECK(left_behind(out) == words{});
  }
  CHECK(all.kills >= 10);
  CHECK(all.resumes >= 1);
}

TEST_CASE("two processes do not train in one folder", "[slow]") {
  const work_folder work;
  write(work / "code.txt", code(20000));
  const words command = words{"--out", (work / "model").string(), "--domain", "code=" + (work / "code.txt").string()} +
                        tiny_training(1000000) + tiny_shape();
  process first("pretrain", command);
  wait_for(work / "model" / "training" / "metrics.jsonl");
  check_refused("pretrain", run("pretrain", command),
                {(work / "model" / "training").string(), "another process is training here"});
  first.wait(SIGKILL);
}

}  // namespace kill_tests
