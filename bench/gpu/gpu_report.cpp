// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// What graft does on the card at hand, as JSON lines (report_line.hpp): times, floors, scores.
//
//   gpu_report PART... [--data FOLDER] [--small] [--seconds S]
//
// Parts: ceilings, grouped, moe, attention, cross_entropy, adamw, router, permutation, steps, all.
// --data: also compute small shapes and write inputs and results there as .npy, for peers.py to compare with.
// --small: measure the small shapes, which shows that everything runs and nothing about speed.
// Without a GPU: `gpu_report shapes [--small]` prints what is measured, `gpu_report offsets ROWS GROUPS ROUTING
// REPETITION` how rows fall to groups.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "common/parts.hpp"
#include "shapes.hpp"

namespace {

using part_function = void (*)(const bench::report_options&);
const std::vector<std::pair<std::string, part_function>> parts{{"grouped", bench::report_grouped},
                                                               {"moe", bench::report_moe},
                                                               {"attention", bench::report_attention},
                                                               {"cross_entropy", bench::report_cross_entropy},
                                                               {"adamw", bench::report_adamw},
                                                               {"router", bench::report_router},
                                                               {"permutation", bench::report_permutation},
                                                               {"steps", bench::report_steps}};

int fail(const std::string& problem) {
  std::fprintf(stderr, "gpu_report: %s\n", problem.c_str());
  return 2;
}

int print_offsets(int argc, char** argv) {
  if (argc != 6) return fail("expected offsets ROWS GROUPS ROUTING REPETITION");
  for (const std::int32_t offset :
       bench::group_offsets(std::atoll(argv[2]), std::atoll(argv[3]), argv[4], std::atoi(argv[5])))
    std::printf("%d ", offset);
  std::printf("\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "offsets") return print_offsets(argc, argv);
  bench::report_options options;
  std::vector<std::string> wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--small") {
      options.small = true;
    } else if (word == "--data" || word == "--seconds") {
      if (++i == argc) return fail(word + ": expected a value, got none");
      if (word == "--data")
        options.data = argv[i];
      else
        options.seconds = std::atof(argv[i]);
    } else {
      wanted.push_back(word);
    }
  }
  std::string known = "shapes, ceilings";
  for (const auto& part : parts) known += ", " + part.first;
  if (wanted.empty()) return fail("expected some of " + known + ", all");
  const auto wants = [&](const std::string& name) {
    for (const std::string& word : wanted)
      if (word == name || (word == "all" && name != "shapes")) return true;
    return false;
  };
  for (const std::string& word : wanted)
    if (word != "all" && (", " + known + ",").find(", " + word + ",") == std::string::npos)
      return fail("expected some of " + known + ", all, got " + word);
  if (!(options.seconds > 0)) return fail("--seconds: expected a number above 0");
  if (wants("shapes")) {
    bench::print_shapes(options.small);
    if (wanted.size() == 1) return 0;
  }
  bool succeeded = true;
  const auto attempt = [&](const auto& run) {
    try {
      run();
    } catch (const std::exception& problem) {
      std::fflush(stdout);
      std::fprintf(stderr, "gpu_report: %s\n", problem.what());
      succeeded = false;
    }
  };
  attempt([&] { options.card = bench::measure_ceilings(options.small); });
  if (!succeeded) return 1;
  if (wants("ceilings")) attempt([&] { bench::report_ceilings(options.card); });
  for (const auto& part : parts)
    if (wants(part.first)) attempt([&] { part.second(options); });
  return succeeded && bench::all_succeeded() ? 0 : 1;
}
