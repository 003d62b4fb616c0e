// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// The numbered programs: they run, learn, and show what they say they show.

#include <regex>

#include "program.hpp"

namespace tutorials_tests {

using namespace program_test;

namespace {

// All numbers that stand where the first group of the pattern is.
std::vector<double> numbers(const std::string& text, const std::string& pattern) {
  const std::regex expression(pattern);
  std::vector<double> found;
  for (std::sregex_iterator at(text.begin(), text.end(), expression), end; at != end; ++at)
    found.push_back(std::stod((*at)[1]));
  return found;
}

}  // namespace

TEST_CASE("01_router: the router learns and uses a second expert in doubt only") {
  const std::string out = succeed("01_router", {}).out;
  const std::vector<double> losses = numbers(out, "loss ([0-9.]+)");
  REQUIRE(losses.size() == 3);
  CHECK(losses[2] < 0.7 * losses[0]);
  const std::vector<double> doubts = numbers(out, "([0-9.]+) % of the tokens");
  REQUIRE(doubts.size() == 2);
  for (const double doubt : doubts) {
    CHECK(doubt > 0);
    CHECK(doubt < 100);
  }
  CHECK(succeed("01_router", {}).out == out);
}

TEST_CASE("02_balancer: the load is more even with the balancer") {
  const std::string out = succeed("02_balancer", {}).out;
  const std::vector<double> without = numbers(out, "none +block [0-9]: MaxVio ([0-9.]+)"),
                            with = numbers(out, "variation_loss block [0-9]: MaxVio ([0-9.]+)");
  REQUIRE(without.size() == 2);
  REQUIRE(with.size() == 2);
  CHECK(with[0] + with[1] < without[0] + without[1]);
}

TEST_CASE("branch_train_mix --list names every policy") {
  const std::string out = succeed("branch_train_mix", {"--list"}).out;
  for (const char* name : {"top_k/1,2", "switch_top_1/1", "sigmoid_top_k/2", "expert_choice/4", "switch_loss",
                           "loss_free_bias", "dirichlet_prior", "routed", "adapted", "lora"})
    CHECK(out.find(name) != std::string::npos);
}

}  // namespace tutorials_tests
