// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The table at the end: rows as they go into results.json and onto the terminal.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iomanip>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/analysis/evaluate.hpp>

namespace examples {

struct result_row {
  std::string name;                                   // "btx"
  std::string method;                                 // "BTX top-2, after training"
  graft::index_t total = 0, active = 0, trained = 0;  // parameters
  graft::index_t train_tokens = 0, critical_path_tokens = 0;
  double tokens_per_second = 0;                // of its last training; 0 for a row that was not trained
  std::vector<graft::evaluation> evaluations;  // per domain

  double average() const {
    double sum = 0;
    for (const graft::evaluation& e : evaluations) sum += e.bits_per_byte();
    return evaluations.empty() ? 0 : sum / static_cast<double>(evaluations.size());
  }

  // MaxVio of the held-out text of all domains together, the mean over blocks with experts; -1 without any.
  double max_violation() const {
    std::vector<graft::layer_load> blocks;
    for (const graft::evaluation& domain : evaluations) {
      blocks.resize(domain.load.size());
      for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] += domain.load[i];
    }
    double sum = 0;
    int count = 0;
    for (const graft::layer_load& block : blocks)
      if (!block.counts.empty()) sum += block.max_violation(), ++count;
    return count > 0 ? sum / count : -1;
  }
};

struct result_table {
  std::vector<std::string> domains;
  std::vector<result_row> rows;
  std::uint64_t seed = 0;
  std::string device, precision;

  nlohmann::ordered_json to_json() const {
    nlohmann::ordered_json root;
    root["rows"] = nlohmann::ordered_json::array();
    for (const result_row& row : rows) {
      nlohmann::ordered_json bits;
      for (std::size_t d = 0; d < domains.size(); ++d) bits[domains[d]] = row.evaluations[d].bits_per_byte();
      bits["average"] = row.average();
      nlohmann::ordered_json item;
      item["name"] = row.name;
      item["method"] = row.method;
      item["parameters"] = {{"total", row.total}, {"active", row.active}, {"trained", row.trained}};
      item["bits_per_byte"] = bits;
      item["train_tokens"] = row.train_tokens;
      item["critical_path_tokens"] = row.critical_path_tokens;
      item["tokens_per_second"] = row.tokens_per_second;
      if (row.max_violation() >= 0) item["max_violation"] = row.max_violation();
      root["rows"].push_back(item);
    }
    root["domains"] = domains;
    root["seed"] = seed;
    root["device"] = device;
    root["precision"] = precision;
    return root;
  }

  // The best of every column is marked with a star.
  std::string to_text() const {
    std::vector<std::vector<std::string>> cells;
    std::vector<std::string> head{"bits per byte"};
    head.insert(head.end(), domains.begin(), domains.end());
    for (const char* column :
         {"average", "total", "active", "trained", "tokens seen", "critical path", "tokens/s", "MaxVio"})
      head.emplace_back(column);
    cells.push_back(head);
    const auto value = [&](const result_row& row, std::size_t column) {
      return column < domains.size() ? row.evaluations[column].bits_per_byte() : row.average();
    };
    for (const result_row& row : rows) {
      std::vector<std::string> line{row.name};
      for (std::size_t column = 0; column <= domains.size(); ++column) {
        bool best = true;
        for (const result_row& other : rows) best = best && value(row, column) <= value(other, column);
        std::ostringstream text;
        text << std::fixed << std::setprecision(3) << value(row, column) << (best ? "*" : " ");
        line.push_back(text.str());
      }
      line.push_back(millions(row.total));
      line.push_back(millions(row.active));
      line.push_back(row.trained > 0 ? millions(row.trained) : "-");
      line.push_back(millions(row.train_tokens));
      line.push_back(millions(row.critical_path_tokens));
      line.push_back(row.tokens_per_second > 0 ? std::to_string(static_cast<long long>(row.tokens_per_second + 0.5))
                                               : "-");
      std::ostringstream violation;
      if (row.max_violation() >= 0)
        violation << std::fixed << std::setprecision(2) << row.max_violation();
      else
        violation << '-';
      line.push_back(violation.str());
      cells.push_back(line);
    }
    std::vector<std::size_t> widths(head.size(), 0);
    for (const auto& line : cells)
      for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    std::ostringstream text;
    for (std::size_t n = 0; n < cells.size(); ++n) {
      for (std::size_t i = 0; i < cells[n].size(); ++i) {
        const std::string pad(widths[i] - cells[n][i].size(), ' ');
        text << (i > 0 ? "  " : "") << (i == 0 ? cells[n][i] + pad : pad + cells[n][i]);
      }
      text << '\n';
      if (n == 0) {
        std::size_t total = 0;
        for (const std::size_t width : widths) total += width + 2;
        text << std::string(total - 2, '-') << '\n';
      }
    }
    return text.str();
  }

 private:
  static std::string millions(graft::index_t count) {
    std::ostringstream text;
    text << std::fixed << std::setprecision(2) << static_cast<double>(count) / 1e6 << "M";
    return text.str();
  }
};

}  // namespace examples
