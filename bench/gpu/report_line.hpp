// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the programs of bench/gpu print: one JSON object a line. Lines of graft and of its peers with the same part,
// name and shape belong together (table.py joins them).
//   {"part":"grouped","name":"forward","shape":{...},"who":"graft","ms":1.2,"floor_ms":0.8,"score":0.67}

#include <concepts>
#include <cstdint>
#include <cstdio>
#include <string>

namespace bench {

// Requires: keys and strings without control characters.
class json_object {
 public:
  json_object& add(const std::string& key, const std::string& value) {
    std::string quoted = "\"";
    for (const char c : value) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    return put(key, quoted + '"');
  }
  json_object& add(const std::string& key, const char* value) { return add(key, std::string(value)); }
  json_object& add(const std::string& key, bool value) { return put(key, value ? "true" : "false"); }
  json_object& add(const std::string& key, std::integral auto value) { return put(key, std::to_string(value)); }
  json_object& add(const std::string& key, double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value);
    const bool finite = value - value == 0;
    return put(key, finite ? std::string(text) : "null");
  }
  json_object& add(const std::string& key, const json_object& value) { return put(key, value.text()); }

  std::string text() const { return "{" + members_ + "}"; }

 private:
  json_object& put(const std::string& key, const std::string& value) {
    members_ += (members_.empty() ? "\"" : ",\"") + key + "\":" + value;
    return *this;
  }
  std::string members_;
};

inline void print_line(const json_object& line) {
  std::printf("%s\n", line.text().c_str());
  std::fflush(stdout);
}

}  // namespace bench
