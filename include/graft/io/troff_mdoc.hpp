// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The common macros of mdoc, the other macro package of manual pages (BSD's). Its macros take their meaning from
// what they mark (.Fl a flag, .Xr a reference) and may call one another on one line.

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <graft/io/troff.hpp>

namespace graft {

// True when name is a macro of mdoc; its text is then emitted.
inline bool troff_filter::mdoc(const std::string& name, const std::vector<std::string>& arguments) {
  static const std::map<std::string, std::pair<std::string, std::string>, std::less<>> enclosed = {
      {"Op", {"[", "]"}}, {"Pq", {"(", ")"}}, {"Dq", {"“", "”"}},   {"Sq", {"‘", "’"}}, {"Aq", {"<", ">"}},
      {"Bq", {"[", "]"}}, {"Ql", {"‘", "’"}}, {"Qq", {"\"", "\""}}, {"Brq", {"{", "}"}}};
  static constexpr std::string_view marks[] = {"Ar", "Cm", "Dv", "Em", "Er", "Ev", "Fa", "Ft", "Ic", "In", "Li", "Lk",
                                               "Mt", "Nd", "Pa", "Sy", "Tn", "Va", "Vt", "Fn", "Fo", "Sx", "Lb", "An",
                                               "Ns", "Pf", "St", "At", "No", "Ux", "Ao", "Ac", "Fl", "Nm", "Xr"};
  const auto is_mark = [&](std::string_view word) {
    return std::find(std::begin(marks), std::end(marks), word) != std::end(marks);
  };
  const auto is_mdoc = [&](std::string_view word) { return is_mark(word) || enclosed.contains(word); };

  if (name == "Dd" || name == "El" || name == "Ek" || name == "Bk" || name == "Bl" || name == "Fc") {
    if (name == "Fc") attach(")");
    if (name == "El") paragraph();
    return true;
  }
  if (name == "Bd" || name == "Ed") {
    paragraph();
    fill_ = name == "Ed" || arguments.empty() || (arguments[0] != "-literal" && arguments[0] != "-unfilled");
    return true;
  }
  const bool is_item = name == "It";
  if (!is_item && !is_mdoc(name)) return false;
  if (is_item) {
    paragraph();
    tag_next_ = !arguments.empty();
  }

  std::vector<std::string> words(arguments);
  if (!is_item) words.insert(words.begin(), name);
  std::string text, closers;
  bool glue = true;  // no space before the next word
  const auto put = [&](const std::string& word) {
    const bool closing = word.size() == 1 && std::string_view(".,:;)]?!").find(word[0]) != std::string_view::npos;
    if (closing) text += std::exchange(closers, {});
    if (!glue && !closing) text += ' ';
    text += word;
    glue = word == "(" || word == "[";
  };
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    const bool has_next = i + 1 < words.size() && !is_mdoc(words[i + 1]);
    if (const auto found = enclosed.find(word); found != enclosed.end()) {
      put(found->second.first);
      glue = true;
      closers = found->second.second + closers;
    } else if (word == "Ns") {
      glue = true;
    } else if (word == "Nm") {
      if (!has_next)
        put(mdoc_name_);
      else if (mdoc_name_.empty())
        mdoc_name_ = words[i + 1];
    } else if (word == "Nd") {
      put("-");
    } else if (word == "Fl") {
      put("-");
      glue = has_next;
    } else if (word == "Ar" && !has_next) {
      put("file ...");
    } else if (word == "Pf" && has_next) {
      put(words[++i]);
      glue = true;
    } else if (word == "Xr" && i + 2 < words.size()) {
      put(words[i + 1] + "(" + words[i + 2] + ")");
      i += 2;
    } else if ((word == "Fn" || word == "Fo") && has_next) {
      put(words[++i] + "(");
      glue = true;
      if (word == "Fn") {
        for (bool first = true; i + 1 < words.size() && words[i + 1].size() > 1 && !is_mdoc(words[i + 1]);
             first = false)
          text += (first ? "" : ", ") + words[++i];
        text += ")";
        glue = false;
      }
    } else if (!is_mark(word)) {
      put(word);
    }
  }
  text += closers;
  emit_rendered(text);
  return true;
}

}  // namespace graft
