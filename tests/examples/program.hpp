// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The example programs as a user runs them: other processes, in a folder of their own, with made-up text.

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "catch.hpp"

namespace program_test {

namespace fs = std::filesystem;
using words = std::vector<std::string>;

inline words operator+(words a, const words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Arguments with some options changed or added, each a flag and its value.
inline words changed(words arguments, const words& options) {
  for (std::size_t i = 0; i + 1 < options.size(); i += 2) {
    const auto at = std::find(arguments.begin(), arguments.end(), options[i]);
    if (at == arguments.end())
      arguments.insert(arguments.end(), {options[i], options[i + 1]});
    else
      at[1] = options[i + 1];
  }
  return arguments;
}

// A folder that goes with the test.
class work_folder {
 public:
  work_folder() {
    std::string name = (fs::temp_directory_path() / "graft-programs-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~work_folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  work_folder(const work_folder&) = delete;
  work_folder& operator=(const work_folder&) = delete;

  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

inline std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline void replace_in(const fs::path& path, const std::string& from, const std::string& to) {
  std::string text = read(path);
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  write(path, text.replace(at, from.size(), to));
}

struct outcome {
  int status = -1;  // of exit
  int signal = 0;
  std::string out, err;

  // The last line of stderr, without its newline.
  std::string sentence() const {
    const std::string text = err.substr(0, err.find_last_not_of('\n') + 1);
    return text.substr(text.rfind('\n') + 1);
  }
};

// A program that runs. Without wait() it is killed at the end.
class process {
 public:
  // before: run in the new process before the program starts.
  process(const std::string& program, const words& arguments, const std::function<void()>& before = {}) {
    words all{(fs::path(GRAFT_TEST_PROGRAM_DIR) / program).string()};
    all = all + arguments;
    std::vector<char*> pointers;
    for (std::string& word : all) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const int out = descriptor(out_), err = descriptor(err_);
    child_ = fork();
    REQUIRE(child_ >= 0);
    if (child_ > 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is stopped leaves nothing running
    dup2(out, 1);
    dup2(err, 2);
    if (before) before();
    execv(pointers[0], pointers.data());
    _exit(127);
  }
  process(const process&) = delete;
  process& operator=(const process&) = delete;
  ~process() {
    if (child_ > 0) wait(SIGKILL);
    std::fclose(out_);
    std::fclose(err_);
  }

  outcome wait(int signal = 0) {
    if (signal != 0) kill(child_, signal);
    int status = 0;
    REQUIRE(waitpid(child_, &status, 0) == child_);
    child_ = -1;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0, text(out_),
            text(err_)};
  }

 private:
  static int descriptor(std::FILE*& file) {
    file = std::tmpfile();
    REQUIRE(file != nullptr);
    fcntl(fileno(file), F_SETFD, FD_CLOEXEC);
    return fileno(file);
  }
  static std::string text(std::FILE* file) {
    std::string all(static_cast<std::size_t>(lseek(fileno(file), 0, SEEK_END)), '\0');
    const auto size = pread(fileno(file), all.data(), all.size(), 0);
    REQUIRE(size == static_cast<ssize_t>(all.size()));
    return all;
  }

  std::FILE *out_ = nullptr, *err_ = nullptr;
  pid_t child_ = -1;
};

inline outcome run(const std::string& program, const words& arguments, const std::function<void()>& before = {}) {
  return process(program, arguments, before).wait();
}

inline outcome succeed(const std::string& program, const words& arguments) {
  const outcome result = run(program, arguments);
  INFO(program << " said: " << result.err);
  REQUIRE(result.signal == 0);
  REQUIRE(result.status == 0);
  return result;
}

// Waits for a file that a running program makes.
inline void wait_for(const fs::path& path) {
  for (int attempt = 0; attempt < 6000 && !fs::exists(path); ++attempt)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  REQUIRE(fs::exists(path));
}

// A refusal: exit status 1, nothing on stdout, and one sentence at the end of stderr that has all the parts.
inline void check_refused(const std::string& program, const outcome& result, const words& parts) {
  INFO(program << " said: " << result.err);
  CHECK(result.status == 1);
  CHECK(result.out.empty());
  const std::string sentence = result.sentence();
  CHECK(sentence.starts_with(program + ": "));
  for (const std::string& part : parts) {
    INFO("expected: " << part);
    CHECK(sentence.find(part) != std::string::npos);
  }
}

// ---- text ----------------------------------------------------------------------------------------
// Three kinds that are easy to tell apart, the same for the same seed.

inline std::string prose(std::size_t bytes, unsigned seed = 1) {
  const char* const vocabulary[] = {"the", "water", "was",   "très", "cold", "and",    "nobody",
                                    "in",  "town",  "would", "swim", "été",  "before", "noon"};
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < bytes) {
    for (unsigned n = 4 + random() % 8; n > 0; --n)
      text += std::string(vocabulary[random() % 14]) + (n > 1 ? " " : ".");
    text += random() % 4 == 0 ? "\n\n" : "\n";
  }
  return text;
}

inline std::string code(std::size_t bytes, unsigned seed = 2) {
  const char* const names[] = {"size", "count", "left", "right", "value"};
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < bytes) {
    const std::string name = names[random() % 5], other = names[random() % 5];
    text += "int " + name + "(int " + other + ") {\n  return " + other + " * " + std::to_string(random() % 100) +
            ";\n}\n\n";
  }
  return text;
}

inline std::string digits(std::size_t bytes, unsigned seed = 3) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < bytes) text += std::to_string(random()) + "\n";
  return text;
}

// Writes the three and returns the arguments that name them.
inline words three_domains(const work_folder& work, std::size_t bytes) {
  write(work / "prose.txt", prose(bytes));
  write(work / "code.txt", code(bytes));
  write(work / "digits.txt", digits(bytes));
  return {"--domain", "prose=" + (work / "prose.txt").string(),  "--domain", "code=" + (work / "code.txt").string(),
          "--domain", "digits=" + (work / "digits.txt").string()};
}

// ---- tiny models ---------------------------------------------------------------------------------

// A step of these takes about a millisecond.
inline words tiny_training(int steps) {
  return {"--positions",    "16", "--sequences", "4", "--steps",  std::to_string(steps),
          "--warmup-steps", "2",  "--threads",   "1", "--device", "cpu"};
}
inline words tiny_shape() {
  return {"--width", "16", "--blocks", "1", "--heads", "2", "--kv-heads", "1", "--head-dim", "8", "--hidden", "32"};
}

// A seed in work/NAME on work/prose.txt.
inline fs::path tiny_seed(const work_folder& work, const std::string& name = "seed", const words& more = {}) {
  if (!fs::exists(work / "prose.txt")) write(work / "prose.txt", prose(8000));
  succeed("pretrain",
          changed(words{"--out", (work / name).string(), "--domain", "prose=" + (work / "prose.txt").string()} +
                      tiny_training(3) + tiny_shape(),
                  more));
  return work / name;
}

// A branch of a model on text of its own, in work/NAME.
inline fs::path tiny_branch(const work_folder& work, const fs::path& from, const std::string& name,
                            const std::string& text) {
  write(work / (name + ".txt"), text);
  succeed("branch", words{"--from", from.string(), "--out", (work / name).string(), "--domain",
                          name + "=" + (work / (name + ".txt")).string()} +
                        tiny_training(3));
  return work / name;
}

// ---- what a program leaves behind ----------------------------------------------------------------

inline std::vector<nlohmann::json> metrics_without_time(const fs::path& model) {
  std::vector<nlohmann::json> lines;
  std::ifstream in(model / "training" / "metrics.jsonl");
  REQUIRE(in);
  for (std::string line; std::getline(in, line);) {
    lines.push_back(nlohmann::json::parse(line));
    CHECK(lines.back().erase("seconds") == 1);
  }
  return lines;
}

// Names of files that are there for the time of a write or of a run.
inline words left_behind(const fs::path& folder) {
  words names;
  if (!fs::exists(folder)) return names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".partial") || name == "checkpoint.safetensors") names.push_back(entry.path().string());
  }
  return names;
}

// Contents of all files below a folder.
inline std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).string()] = read(entry.path());
  return files;
}

}  // namespace program_test
