// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Checks of values on a command line, each with a sentence of its own: CLI11's name the whole range of a number type,
// and the numbers behind the names of an enumeration.

#include <cstddef>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

namespace examples {

// A number that is not below `least`.
inline CLI::Validator at_least(int least) {
  return CLI::Validator(
      [least](const std::string& text) {
        double value = 0;
        return CLI::detail::lexical_cast(text, value) && value >= least
                   ? std::string()
                   : "expected a number of at least " + std::to_string(least) + ", got " + text;
      },
      least == 0 ? "NONNEGATIVE" : "POSITIVE");
}

// An option that takes the names of an enumeration's values: name_of(each).
template <class Enumeration, std::size_t Count>
CLI::Option* add_named_option(CLI::App& app, const char* flag, Enumeration& value, const Enumeration (&all)[Count],
                              const char* text) {
  std::vector<std::string> names;
  std::string list;
  for (const Enumeration each : all) {
    names.emplace_back(name_of(each));
    list += (list.empty() ? "" : ",") + names.back();
  }
  return app
      .add_option_function<std::string>(
          flag,
          [&value, &all](const std::string& name) {
            for (const Enumeration each : all)
              if (name_of(each) == name) value = each;
          },
          text)
      ->check(CLI::Validator(
          [names, list](const std::string& name) {
            for (const std::string& each : names)
              if (each == name) return std::string();
            return "expected one of " + list + ", got " + name;
          },
          ""))
      ->option_text("TEXT:{" + list + "}=" + std::string(name_of(value)));
}

}  // namespace examples
