// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// JSON read strictly: no duplicate keys, no key that nobody asks for, and every complaint is one sentence that names
// the file, the key and what was expected.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <graft/core/error.hpp>
#include <graft/core/host_device.hpp>
#include <graft/io/mapped_file.hpp>

namespace graft {

namespace detail {

// Text from a file inside a sentence: in quotes, on one line, not endless.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 160;
  constexpr char digits[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      result += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    } else {
      result += c;
    }
  }
  return result + (text.size() > longest ? "...\"" : "\"");
}

// A JSON value inside a sentence.
inline std::string shown(const nlohmann::json& value) {
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  if (value.is_object()) return "an object";
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() > 100 ? text.substr(0, 100) + "..." : text;
}

template <class Names>
std::string joined(const Names& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

}  // namespace detail

// Parses one JSON value. Strings must be UTF-8, nesting at most 64 deep, keys unique within their object.
// Errors: graft::error that starts with `place` (usually the path) and says where the text goes wrong.
inline nlohmann::json parse_json(std::string_view text, const std::string& place) {
  using nlohmann::json;
  constexpr int deepest = 64;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    GRAFT_CHECK(depth <= deepest, place, ": the JSON is nested deeper than ", deepest, " levels");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      GRAFT_CHECK(keys.back().insert(key).second, place, ": the key ", detail::in_quotes(key),
                  " stands twice in one object");
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::parse_error& problem) {
    // "[json.exception.parse_error.101] parse error at line 1, column 3: reason; last read: '...'"
    std::string reason = problem.what();
    reason = reason.substr(
        std::min(reason.size(), reason.find("parse error at") + std::string_view("parse error at").size()));
    reason = reason.substr(std::min(reason.size(), reason.find(": ") + 2));
    const auto byte = std::min(text.size(), problem.byte > 0 ? problem.byte - 1 : 0);
    reason = detail::in_quotes(reason.substr(0, reason.find("; last read")));
    detail::raise(place, ": expected JSON in UTF-8, but at byte ", byte, " there is a ",
                  reason.substr(1, reason.size() - 2));
  } catch (const json::exception& problem) {
    detail::raise(place, ": the JSON holds a number out of range (", detail::in_quotes(problem.what()), ")");
  }
}

inline nlohmann::json read_json_file(const std::filesystem::path& path) {
  const mapped_file file(path);
  return parse_json(file.text(), path.string());
}

// Reads an object key by key. finish() complains of keys that no call asked for.
// The object and everything taken from it by reference must outlive the reader.
class json_reader {
 public:
  json_reader(const nlohmann::json& value, std::string place) : object_(&value), place_(std::move(place)) {
    GRAFT_CHECK(value.is_object(), place_, ": expected an object, got ", detail::shown(value));
  }

  const std::string& place() const { return place_; }

  // The value of a key, or nullptr when it is absent or null.
  const nlohmann::json* find(const std::string& key) {
    known_.insert(key);
    const auto found = object_->find(key);
    return found == object_->end() || found->is_null() ? nullptr : &*found;
  }
  const nlohmann::json& get(const std::string& key) {
    const nlohmann::json* value = find(key);
    GRAFT_CHECK(value != nullptr, place_, ": the key ", detail::in_quotes(key), " is missing");
    return *value;
  }
  json_reader object(const std::string& key) { return json_reader(get(key), place_ + ": " + key); }

  index_t positive(const std::string& key) { return positive(key, get(key)); }
  index_t positive_or(const std::string& key, index_t otherwise) {
    const nlohmann::json* value = find(key);
    return value == nullptr ? otherwise : positive(key, *value);
  }
  double number(const std::string& key) { return number(key, get(key)); }
  double number_or(const std::string& key, double otherwise) {
    const nlohmann::json* value = find(key);
    return value == nullptr ? otherwise : number(key, *value);
  }
  bool flag_or(const std::string& key, bool otherwise) {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) wrong(key, "true or false", *value);
    return value->get<bool>();
  }
  std::string text(const std::string& key) { return text(key, get(key)); }
  std::string text_or(const std::string& key, std::string otherwise) {
    const nlohmann::json* value = find(key);
    return value == nullptr ? otherwise : text(key, *value);
  }

  // Refuses any value but the given one; absent and null are as good as the value.
  void expect(const std::string& key, const nlohmann::json& only) {
    const nlohmann::json* value = find(key);
    if (value != nullptr && *value != only) wrong(key, detail::shown(only), *value);
  }
  // Keys that are known and mean nothing here.
  void ignore(std::initializer_list<const char*> keys) { known_.insert(keys.begin(), keys.end()); }

  void finish(std::string_view advice = {}) const {
    for (const auto& item : object_->items())
      GRAFT_CHECK(known_.contains(item.key()), place_, ": unknown key ", detail::in_quotes(item.key()), " (value ",
                  detail::shown(item.value()), "), ",
                  advice.empty() ? "expected one of " + detail::joined(known_) : std::string(advice));
  }

  [[noreturn]] void wrong(const std::string& key, const std::string& expected, const nlohmann::json& value) const {
    detail::raise(place_, ": expected ", detail::in_quotes(key), " to be ", expected, ", got ", detail::shown(value));
  }

 private:
  index_t positive(const std::string& key, const nlohmann::json& value) const {
    constexpr index_t most = std::numeric_limits<std::int32_t>::max();
    const bool huge = value.is_number_unsigned() && value.get<std::uint64_t>() > static_cast<std::uint64_t>(most);
    if (!value.is_number_integer() || huge || value.get<index_t>() < 1 || value.get<index_t>() > most)
      wrong(key, "an integer from 1 to " + std::to_string(most), value);
    return value.get<index_t>();
  }
  double number(const std::string& key, const nlohmann::json& value) const {
    if (!value.is_number()) wrong(key, "a number", value);
    return value.get<double>();
  }
  std::string text(const std::string& key, const nlohmann::json& value) const {
    if (!value.is_string()) wrong(key, "a string", value);
    return value.get<std::string>();
  }

  const nlohmann::json* object_;
  std::string place_;
  std::set<std::string> known_;
};

}  // namespace graft
