// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What happens inside a line of troff: the arguments of a request, comments, and the escapes that begin with a
// backslash. Fonts, sizes, motions and colours vanish, special characters and strings become text.

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <graft/io/troff_characters.hpp>

namespace graft::detail {

// What the escapes of a page refer to.
struct troff_state {
  std::map<std::string, std::string, std::less<>> strings;  // .ds
  std::map<std::string, long, std::less<>> registers;       // .nr
  // Interpolations still allowed: a string or macro that contains itself must end.
  int budget = 100000;

  long number(std::string_view name) const {
    if (name == ".g") return 1;  // we understand groff's extensions
    const auto found = registers.find(name);
    return found == registers.end() ? 0 : found->second;
  }
};

// Reads an escape's name at the front of text, `x`, `(xx` or `[name]`, and removes it.
inline std::string_view troff_name(std::string_view& text) {
  std::string_view name;
  if (text.starts_with('(')) {
    name = text.substr(1, 2);
    text.remove_prefix(std::min<std::size_t>(3, text.size()));
  } else if (text.starts_with('[')) {
    const std::size_t end = std::min(text.find(']'), text.size());
    name = text.substr(1, end - 1);
    text.remove_prefix(std::min(end + 1, text.size()));
  } else if (!text.empty()) {
    const std::size_t length = std::max<std::size_t>(1, utf8_length(text));
    name = text.substr(0, length);
    text.remove_prefix(length);
  }
  return name;
}

// Reads a delimited argument such as 'abc' at the front of text and removes it.
inline std::string_view troff_delimited(std::string_view& text) {
  if (text.empty()) return {};
  const char delimiter = text[0];
  std::size_t end = 1;
  while (end < text.size() && text[end] != delimiter) end += text[end] == '\\' ? 2 : 1;
  end = std::min(end, text.size());
  const std::string_view argument = text.substr(1, end - 1);
  text.remove_prefix(std::min(end + 1, text.size()));
  return argument;
}

// Removes the change of size that \s is followed by: N, +N, (NN, +(NN, [N], 'N'.
inline void troff_skip_size(std::string_view& text) {
  const bool has_sign = text.starts_with('+') || text.starts_with('-');
  if (has_sign) text.remove_prefix(1);
  if (text.empty()) return;
  if (text[0] == '(' || text[0] == '[') {
    troff_name(text);
  } else if (text[0] == '\'') {
    troff_delimited(text);
  } else {
    const bool two =
        !has_sign && text[0] >= '1' && text[0] <= '3' && text.size() > 1 && text[1] >= '0' && text[1] <= '9';
    text.remove_prefix(two ? 2 : 1);
  }
}

struct troff_text {
  std::string text;
  bool continues = false;  // ended in \c: what comes next follows without a space
};

// The readable text of one line or argument.
inline troff_text render_troff(std::string_view source, troff_state& state, int depth = 0) {
  troff_text result;
  std::string& out = result.text;
  while (!source.empty()) {
    const std::size_t plain = std::min(source.find('\\'), source.size());
    out.append(source.substr(0, plain));
    source.remove_prefix(plain);
    if (source.size() < 2) break;
    const char kind = source[1];
    std::string_view from_kind = source.substr(1);
    source.remove_prefix(2);
    switch (kind) {
      case '-':
        out += '-';
        break;
      case 'e':
      case '\\':
      case 'E':
        out += '\\';
        break;
      case '.':
        out += '.';
        break;
      case '\'':
        out += '\'';
        break;
      case '`':
        out += '`';
        break;
      case '_':
        out += '_';
        break;
      case ' ':
      case '~':
      case '0':
        out += ' ';
        break;
      case 't':
        out += '\t';
        break;
      case 'c':
        result.continues = true;
        return result;
      case '"':
        return result;
      case '(':
      case '[':
        out += troff_character_text(troff_name(from_kind));
        source = from_kind;
        break;
      case 'C':
        out += troff_character_text(troff_delimited(source));
        break;
      case 'N':
        out += troff_character_text("char" + std::string(troff_delimited(source)));
        break;
      case '*': {
        const auto found = state.strings.find(troff_name(source));
        if (found == state.strings.end() || depth >= 8 || state.budget <= 0) break;
        --state.budget;
        const std::string value = found->second;
        if (out.size() < (1u << 20)) out += render_troff(value, state, depth + 1).text;
        break;
      }
      case 'n': {
        if (source.starts_with('+') || source.starts_with('-')) source.remove_prefix(1);
        out += std::to_string(state.number(troff_name(source)));
        break;
      }
      case 'f':
      case 'F':
      case 'm':
      case 'M':
      case 'k':
      case 'g':
      case 'Y':
      case 'V':
      case 'O':
        troff_name(source);
        break;
      case 's':
        troff_skip_size(source);
        break;
      case 'o': {
        const std::string_view overstruck = troff_delimited(source);
        if (depth < 8) out += render_troff(overstruck, state, depth + 1).text;
        break;
      }
      case 'h':
      case 'v':
      case 'w':
      case 'l':
      case 'L':
      case 'D':
      case 'b':
      case 'x':
      case 'X':
      case 'A':
      case 'B':
      case 'H':
      case 'S':
      case 'R':
      case 'Z':
        troff_delimited(source);
        break;
      case '$':
        troff_name(source);
        break;
      case '&':
      case '/':
      case ',':
      case ')':
      case '|':
      case '^':
      case '%':
      case ':':
      case 'a':
      case 'p':
      case 'd':
      case 'u':
      case 'r':
      case 'z':
      case '{':
      case '}':
      case '!':
      case '?':
        break;
      default:
        out += kind;
        break;  // troff prints a character it has no meaning for
    }
  }
  return result;
}

// line up to its comment, which begins with \" or \#.
inline std::string_view without_troff_comment(std::string_view line) {
  for (std::size_t i = 0; i + 1 < line.size(); ++i)
    if (line[i] == '\\') {
      if (line[i + 1] == '"' || line[i + 1] == '#') return line.substr(0, i);
      ++i;
    }
  return line;
}

// The arguments of a request: separated by spaces, "in quotes" they may hold spaces, "" inside is a quote.
inline std::vector<std::string> troff_arguments(std::string_view text) {
  std::vector<std::string> arguments;
  for (std::size_t i = 0;;) {
    while (i < text.size() && (text[i] == ' ' || text[i] == '\t')) ++i;
    if (i >= text.size()) return arguments;
    std::string& argument = arguments.emplace_back();
    const bool quoted = text[i] == '"';
    for (i += quoted; i < text.size(); ++i) {
      if (quoted && text[i] == '"') {
        if (i + 1 >= text.size() || text[i + 1] != '"') break;
        ++i;
      } else if (!quoted && text[i] == ' ') {
        break;
      } else if (text[i] == '\\' && i + 1 < text.size()) {
        argument += text[i++];
      }
      argument += text[i];
    }
    if (i < text.size()) ++i;
  }
}

}  // namespace graft::detail
