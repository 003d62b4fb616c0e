// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Plots by gnuplot, as SVG: loss curves of all runs, and where the tokens of each domain went, per layer.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/analysis/evaluate.hpp>
#include <graft/io/atomic_file.hpp>

namespace examples {

namespace fs = std::filesystem;

// A curve: the metrics of one run, shifted to where its start left off.
struct loss_curve {
  std::string name;
  fs::path metrics;  // metrics.jsonl
  double tokens_before = 0;
};

// Runs a script of the folder, in the folder.
inline bool run_gnuplot(const fs::path& folder, const std::string& script) {
  std::string quoted;
  for (const char c : folder.string()) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  const std::string command = "cd '" + quoted + "' && gnuplot " + script + " 2> " + script + ".log";
  if (std::system(command.c_str()) == 0) {
    fs::remove(folder / (script + ".log"));
    return true;
  }
  std::fprintf(stderr, "plots: gnuplot failed on %s, its words are beside it in %s.log\n", (folder / script).c_str(),
               script.c_str());
  return false;
}

// Colours that stay apart for colour-blind readers, in the order of use.
inline const char* plot_colours() {
  return "set linetype 1 lc rgb '#4477aa' lw 2\nset linetype 2 lc rgb '#ee6677' lw 2\nset linetype 3 lc rgb '#228833' "
         "lw 2\n"
         "set linetype 4 lc rgb '#ccbb44' lw 2\nset linetype 5 lc rgb '#66ccee' lw 2\nset linetype 6 lc rgb '#aa3377' "
         "lw 2\n"
         "set linetype 7 lc rgb '#888888' lw 2\nset linetype cycle 7\n";
}

// Writes folder/loss.svg.
inline bool plot_losses(const fs::path& folder, const std::vector<loss_curve>& curves) {
  fs::create_directories(folder);
  std::ostringstream data, plot;
  int index = 0;
  for (const loss_curve& curve : curves) {
    std::ifstream in(curve.metrics);
    if (!in) continue;
    data << "\"" << curve.name << "\"\n";
    double tokens = curve.tokens_before, mean = 0;
    int count = 0;
    for (std::string line; std::getline(in, line);) {
      const nlohmann::json step = nlohmann::json::parse(line);
      tokens += step["tokens"].get<double>();
      ++count;
      const double bits = step["loss"].get<double>() / 0.6931471805599453;
      mean = count == 1 ? bits : mean + (bits - mean) / std::min(count, 10);
      data << tokens / 1e6 << ' ' << mean << '\n';
    }
    data << "\n\n";
    plot << (index > 0 ? ", " : "") << "'loss.dat' index " << index << " with lines title columnheader(1)";
    ++index;
  }
  if (index == 0) return false;
  graft::write_file(folder / "loss.dat", data.str());
  graft::write_file(
      folder / "loss.gnuplot",
      std::string() + "set terminal svg size 900,480 background 'white' font 'sans,13'\nset output 'loss.svg'\n" +
          plot_colours() +
          "set xlabel 'million tokens along the path of the model'\nset ylabel 'training loss, bits per token'\n"
          "set grid lc rgb '#dddddd'\nset key outside right noenhanced\nset yrange [*:6]\nplot " +
          plot.str() + "\n");
  return run_gnuplot(folder, "loss.gnuplot");
}

// Writes folder/routing.svg: for each layer, one stacked bar per domain, the share of its slots that each expert gets.
inline bool plot_routing(const fs::path& folder, const std::vector<std::string>& domains,
                         const std::vector<std::string>& experts, const std::vector<graft::evaluation>& evaluations) {
  const std::size_t expert_count = experts.size();
  if (evaluations.empty() || expert_count == 0 || graft::all_counts(evaluations[0].load).empty()) return false;
  fs::create_directories(folder);
  std::vector<std::vector<double>> counts;  // of every domain: blocks with experts x experts
  for (const graft::evaluation& domain : evaluations) counts.push_back(graft::all_counts(domain.load));
  const std::size_t layers = counts[0].size() / expert_count;
  std::ostringstream data, script;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    data << "# domain";
    for (const std::string& expert : experts) data << " \"" << expert << "\"";
    data << '\n';
    for (std::size_t d = 0; d < domains.size(); ++d) {
      double total = 0;
      for (std::size_t e = 0; e < expert_count; ++e) total += counts[d][layer * expert_count + e];
      data << domains[d];
      for (std::size_t e = 0; e < expert_count; ++e) data << ' ' << counts[d][layer * expert_count + e] / total;
      data << '\n';
    }
    data << "\n\n";
  }
  graft::write_file(folder / "routing.dat", data.str());
  const double left = 0.08, right = 0.86, gap = 0.015;
  const double width = (right - left) / static_cast<double>(layers);
  script << "set terminal svg size " << 200 + 180 * layers
         << ",360 background 'white' font 'sans,13'\nset output 'routing.svg'\n"
         << plot_colours()
         << "set style data histograms\nset style histogram rowstacked\nset style fill solid border -1\nset boxwidth "
            "0.8\nset yrange [0:1]\n"
         << "set xrange [-0.7:" << static_cast<double>(domains.size()) - 0.3
         << "]\nset xtics rotate by -35 noenhanced\nset tmargin at screen 0.83\nset bmargin at screen 0.22\n"
         << "set ylabel 'share of the slots'\nset multiplot\n";
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const double start = left + width * static_cast<double>(layer);
    script << "set lmargin at screen " << start << "\nset rmargin at screen " << start + width - gap
           << "\nset title 'layer " << layer << "'\n"
           << (layer == 0 ? "set format y '%g'\n" : "set format y ''\nunset ylabel\n")
           << (layer + 1 == layers ? "set key at screen 0.995,0.8 right reverse Left noenhanced\n" : "unset key\n")
           << "plot ";
    for (std::size_t e = 0; e < expert_count; ++e)
      script << (e > 0 ? ", " : "") << "'routing.dat' index " << layer << " using " << e + 2
             << (e == 0 ? ":xtic(1)" : "") << " title '" << experts[e] << "'";
    script << '\n';
  }
  script << "unset multiplot\n";
  graft::write_file(folder / "routing.gnuplot", script.str());
  return run_gnuplot(folder, "routing.gnuplot");
}

}  // namespace examples
