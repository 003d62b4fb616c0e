// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The special characters of troff, \(xx and \[name], as UTF-8. Source: groff_char(7).

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <graft/io/text_source.hpp>

namespace graft::detail {

struct troff_character {
  std::string_view name, text;
};

// clang-format off
inline constexpr troff_character troff_characters[] = {
    // quotes, dashes, and the ASCII characters that troff would change
    {"aq", "'"}, {"dq", "\""}, {"oq", "‘"}, {"cq", "’"}, {"lq", "“"}, {"rq", "”"}, {"bq", "‚"}, {"Bq", "„"},
    {"Fo", "«"}, {"Fc", "»"}, {"fo", "‹"}, {"fc", "›"}, {"ga", "`"}, {"aa", "´"}, {"ha", "^"}, {"ti", "~"},
    {"a^", "^"}, {"a~", "˜"}, {"ad", "¨"}, {"ac", "¸"}, {"ao", "˚"}, {"hy", "-"}, {"-", "-"}, {"en", "–"}, {"em", "—"},
    {"rs", "\\"}, {"sl", "/"}, {"at", "@"}, {"sh", "#"}, {"Do", "$"}, {"ul", "_"}, {"ru", "_"}, {"rn", "‾"}, {"or", "|"}, {"ba", "|"},
    {"bb", "¦"}, {"br", "│"}, {"bv", "│"}, {"lB", "["}, {"rB", "]"}, {"lC", "{"}, {"rC", "}"}, {"la", "⟨"}, {"ra", "⟩"},
    // marks and currencies
    {"bu", "•"}, {"ci", "○"}, {"sq", "□"}, {"lz", "◊"}, {"co", "©"}, {"rg", "®"}, {"tm", "™"}, {"de", "°"}, {"sc", "§"},
    {"ps", "¶"}, {"dg", "†"}, {"dd", "‡"}, {"ct", "¢"}, {"Po", "£"}, {"Ye", "¥"}, {"Eu", "€"}, {"eu", "€"}, {"Cs", "¤"},
    {"OK", "✓"}, {"lh", "☜"}, {"rh", "☞"}, {"CR", "↵"}, {"r!", "¡"}, {"r?", "¿"}, {"Of", "ª"}, {"Om", "º"}, {"%0", "‰"},
    {"fm", "′"}, {"sd", "″"}, {"mc", "µ"}, {"12", "½"}, {"14", "¼"}, {"34", "¾"}, {"S1", "¹"}, {"S2", "²"}, {"S3", "³"}, {"pc", "·"},
    // mathematics and arrows
    {"pl", "+"}, {"mi", "−"}, {"+-", "±"}, {"-+", "∓"}, {"mu", "×"}, {"tmu", "×"}, {"di", "÷"}, {"tdi", "÷"}, {"f/", "⁄"}, {"**", "∗"}, {"md", "⋅"},
    {"eq", "="}, {"!=", "≠"}, {"==", "≡"}, {"ne", "≢"}, {"<=", "≤"}, {">=", "≥"}, {"<<", "≪"}, {">>", "≫"}, {"~=", "≅"}, {"=~", "≅"}, {"~~", "≈"}, {"ap", "∼"},
    {"pt", "∝"}, {"if", "∞"}, {"sr", "√"}, {"is", "∫"}, {"sum", "∑"}, {"product", "∏"}, {"gr", "∇"}, {"pd", "∂"}, {"no", "¬"}, {"tno", "¬"}, {"AN", "∧"}, {"OR", "∨"},
    {"fa", "∀"}, {"te", "∃"}, {"mo", "∈"}, {"nm", "∉"}, {"es", "∅"}, {"ca", "∩"}, {"cu", "∪"}, {"sb", "⊂"}, {"sp", "⊃"}, {"ib", "⊆"}, {"ip", "⊇"}, {"c*", "⊗"}, {"c+", "⊕"},
    {"tf", "∴"}, {"lc", "⌈"}, {"rc", "⌉"}, {"lf", "⌊"}, {"rf", "⌋"}, {"Ah", "ℵ"}, {"Im", "ℑ"}, {"Re", "ℜ"},
    {"->", "→"}, {"<-", "←"}, {"<>", "↔"}, {"ua", "↑"}, {"da", "↓"}, {"va", "↕"}, {"rA", "⇒"}, {"lA", "⇐"}, {"hA", "⇔"}, {"uA", "⇑"}, {"dA", "⇓"},
    // letters
    {"ss", "ß"}, {"ae", "æ"}, {"AE", "Æ"}, {"oe", "œ"}, {"OE", "Œ"}, {"/o", "ø"}, {"/O", "Ø"}, {"/l", "ł"}, {"/L", "Ł"}, {"oa", "å"}, {"oA", "Å"},
    {",c", "ç"}, {",C", "Ç"}, {"vs", "š"}, {"vS", "Š"}, {"vz", "ž"}, {"vZ", "Ž"}, {"-D", "Ð"}, {"Sd", "ð"}, {"TP", "Þ"}, {"Tp", "þ"}, {".i", "ı"}, {".j", "ȷ"},
    {"ij", "ĳ"}, {"IJ", "Ĳ"}, {"ff", "ff"}, {"fi", "fi"}, {"fl", "fl"}, {"Fi", "ffi"}, {"Fl", "ffl"},
    {"*a", "α"}, {"*b", "β"}, {"*g", "γ"}, {"*d", "δ"}, {"*e", "ε"}, {"*z", "ζ"}, {"*y", "η"}, {"*h", "θ"}, {"*i", "ι"}, {"*k", "κ"}, {"*l", "λ"}, {"*m", "μ"}, {"*n", "ν"},
    {"*c", "ξ"}, {"*o", "ο"}, {"*p", "π"}, {"*r", "ρ"}, {"*s", "σ"}, {"ts", "ς"}, {"*t", "τ"}, {"*u", "υ"}, {"*f", "φ"}, {"*x", "χ"}, {"*q", "ψ"}, {"*w", "ω"},
    {"*A", "Α"}, {"*B", "Β"}, {"*G", "Γ"}, {"*D", "Δ"}, {"*E", "Ε"}, {"*Z", "Ζ"}, {"*Y", "Η"}, {"*H", "Θ"}, {"*I", "Ι"}, {"*K", "Κ"}, {"*L", "Λ"}, {"*M", "Μ"}, {"*N", "Ν"},
    {"*C", "Ξ"}, {"*O", "Ο"}, {"*P", "Π"}, {"*R", "Ρ"}, {"*S", "Σ"}, {"*T", "Τ"}, {"*U", "Υ"}, {"*F", "Φ"}, {"*X", "Χ"}, {"*Q", "Ψ"}, {"*W", "Ω"},
};

// Accented letters: the accent's troff name, the letters, and their forms in the same order.
struct troff_accent {
  char name;
  std::string_view letters;
  std::u32string_view forms;
};

inline constexpr troff_accent troff_accents[] = {
    {'`', "aeiouAEIOU", U"àèìòùÀÈÌÒÙ"},   {'\'', "aeiouycnszAEIOUYCNSZ", U"áéíóúýćńśźÁÉÍÓÚÝĆŃŚŹ"},
    {'^', "aeiouAEIOU", U"âêîôûÂÊÎÔÛ"},   {':', "aeiouyAEIOUY", U"äëïöüÿÄËÏÖÜŸ"},
    {'~', "anoANO", U"ãñõÃÑÕ"},           {',', "cstCST", U"çşţÇŞŢ"},
    {'v', "cszrenCSZREN", U"čšžřěňČŠŽŘĚŇ"}, {'o', "auAU", U"åůÅŮ"},
};
// clang-format on

inline int hexadecimal_digit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                : -1;
}

// The UTF-8 text of the character called name, or nothing when there is none of that name. Besides the table: accents
// (^e, 'e), uXXXX and uXXXX_XXXX (a letter and a combining mark), and charN.
inline std::string troff_character_text(std::string_view name) {
  for (const troff_character& character : troff_characters)
    if (character.name == name) return std::string(character.text);
  std::string text;
  if (name.size() == 2)
    for (const troff_accent& accent : troff_accents)
      if (const std::size_t at = accent.letters.find(name[1]); accent.name == name[0] && at != std::string_view::npos) {
        append_utf8(text, accent.forms[at]);
        return text;
      }
  if (name.starts_with("char")) {
    std::uint32_t code = 0;
    for (const char c : name.substr(4)) {
      if (c < '0' || c > '9' || code > 255) return {};
      code = code * 10 + static_cast<std::uint32_t>(c - '0');
    }
    if (code >= 32 && code <= 255) append_utf8(text, code);
    return text;
  }
  if (name.size() >= 5 && name[0] == 'u') {
    std::string_view rest = name.substr(1);
    while (!rest.empty()) {
      const std::string_view digits = rest.substr(0, rest.find('_'));
      std::uint32_t code = 0;
      if (digits.size() < 4 || digits.size() > 6) return {};
      for (const char c : digits) {
        const int digit = hexadecimal_digit(c);
        if (digit < 0) return {};
        code = code * 16 + static_cast<std::uint32_t>(digit);
      }
      if (code == 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return {};
      append_utf8(text, code);
      rest.remove_prefix(std::min(rest.size(), digits.size() + 1));
    }
  }
  return text;
}

}  // namespace graft::detail
