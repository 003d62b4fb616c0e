// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A progress bar with loss, tokens per second and time left: one line that is redrawn on a terminal, a line now and
// then elsewhere.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <utility>

#include <graft/train/trainer.hpp>

#include "common/ranks.hpp"

namespace examples {

class progress_bar {
 public:
  progress_bar(std::string label, graft::index_t steps)
      : label_(std::move(label)), steps_(steps), terminal_(isatty(2) != 0), silent_(!rank_world::current().leads()) {}
  ~progress_bar() {
    if (silent_) return;
    if (terminal_ && shown_) std::fputc('\n', stderr);
    if (here_ == 0 && std::uncaught_exceptions() == 0)
      std::fprintf(stderr, "%-16s is trained already\n", label_.c_str());
  }
  progress_bar(const progress_bar&) = delete;
  progress_bar& operator=(const progress_bar&) = delete;

  void operator()(const graft::step_report& report) {
    if (silent_) return;
    const graft::index_t done = report.step + 1;
    if (here_ == 0 && done > report.steps)
      std::fprintf(stderr, "%-16s goes on after %lld of %lld steps\n", label_.c_str(),
                   static_cast<long long>(done - report.steps), static_cast<long long>(steps_));
    seconds_ += report.seconds * static_cast<double>(report.steps);
    tokens_ += static_cast<double>(report.tokens * report.steps);
    here_ += report.steps;
    ++reports_;
    // A mean over about the last 20 reports: one step's loss says little.
    loss_ += (report.loss - loss_) / static_cast<double>(std::min<graft::index_t>(reports_, 20));
    const auto now = std::chrono::steady_clock::now();
    const bool last = done == steps_;
    if (terminal_ ? (!last && now - drawn_ < std::chrono::milliseconds(100))
                  : (!last && done * 5 / steps_ == (done - report.steps) * 5 / steps_))
      return;
    drawn_ = now;
    shown_ = true;
    const double rate = tokens_ / std::max(seconds_, 1e-9);
    const double left = seconds_ / static_cast<double>(here_) * static_cast<double>(steps_ - done);
    std::string bar;
    if (terminal_) {
      const int filled = static_cast<int>(24 * done / steps_);
      bar = "[" + std::string(static_cast<std::size_t>(filled), '#') +
            std::string(static_cast<std::size_t>(24 - filled), '.') + "] ";
    }
    std::fprintf(stderr, "%s%-16s %s%*lld/%lld  loss %.3f  %7.0f tokens/s  %s left%s", terminal_ ? "\r" : "",
                 label_.c_str(), bar.c_str(), digits(steps_), static_cast<long long>(done),
                 static_cast<long long>(steps_), loss_, rate, clock(left).c_str(), terminal_ ? "\033[K" : "\n");
    std::fflush(stderr);
  }

 private:
  static int digits(graft::index_t n) { return static_cast<int>(std::to_string(n).size()); }
  static std::string clock(double seconds) {
    const auto whole = static_cast<long long>(seconds + 0.5);
    char text[32];
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
    return text;
  }

  std::string label_;
  graft::index_t steps_, here_ = 0, reports_ = 0;
  bool terminal_, silent_, shown_ = false;
  double seconds_ = 0, tokens_ = 0, loss_ = 0;
  std::chrono::steady_clock::time_point drawn_{};
};

}  // namespace examples
