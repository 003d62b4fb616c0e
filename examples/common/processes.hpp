// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Branches side by side: child processes with their output in files.

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <graft/core/error.hpp>

namespace examples {

// A command and the file that takes what it prints.
struct child_command {
  std::string label;
  std::vector<std::string> words;
  std::filesystem::path log;
};

// Starts a command. Errors: what the system says.
inline pid_t start_process(const child_command& command) {
  std::filesystem::create_directories(command.log.parent_path());
  const pid_t parent = getpid(), child = fork();
  GRAFT_CHECK(child >= 0, command.label, ": cannot start a process: ", std::strerror(errno));
  if (child > 0) return child;
  // A branch must not go on alone when this process is killed: the same command, given again, would start it a second
  // time.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(125);
  const int log = open(command.log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (log < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) _exit(126);
  std::vector<char*> arguments;
  for (const std::string& word : command.words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  dprintf(2, "%s: %s\n", arguments[0], std::strerror(errno));
  _exit(127);
}

// Runs all commands, at most `jobs` at a time; finished(command, exit status) is called for each. A command that fails
// disturbs no other. prepare(command, place) may change a copy of a command before it starts; place is a number below
// jobs that no other that runs at the same time has.
template <class Finished, class Prepare>
void run_processes(const std::vector<child_command>& commands, int jobs, Finished finished, Prepare prepare) {
  struct running_command {
    const child_command* command;
    int place;
  };
  std::map<pid_t, running_command> running;
  std::set<int> free_places;
  for (int place = 0; place < jobs; ++place) free_places.insert(place);
  std::size_t next = 0;
  while (next < commands.size() || !running.empty()) {
    while (next < commands.size() && static_cast<int>(running.size()) < jobs) {
      const int place = *free_places.begin();
      free_places.erase(place);
      child_command prepared = commands[next];
      prepare(prepared, place);
      running.emplace(start_process(prepared), running_command{&commands[next], place});
      ++next;
    }
    int status = 0;
    const pid_t child = waitpid(-1, &status, 0);
    if (child < 0 && errno == EINTR) continue;
    GRAFT_CHECK(child > 0, "waiting for a branch: ", std::strerror(errno));
    const auto at = running.find(child);
    if (at == running.end()) continue;
    free_places.insert(at->second.place);
    finished(*at->second.command, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    running.erase(at);
  }
}

// Why a command failed, in words: what it printed last, where its log has that.
inline std::string failure_of(const child_command& command, int status) {
  std::string last;
  std::ifstream log(command.log);
  for (std::string line; std::getline(log, line);)
    if (!line.empty()) last = line;
  const std::string where = " (its log: " + command.log.string() + ")";
  if (status > 128)
    return std::string("ended by signal ") + std::to_string(status - 128) + ", " + strsignal(status - 128) + where;
  return (last.empty() ? "exit status " + std::to_string(status) : last) + where;
}

}  // namespace examples
