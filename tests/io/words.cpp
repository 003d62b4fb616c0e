// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Words: case, numbers, scripts, damaged text, and that pieces do not matter.

#include "catch.hpp"

#include <string>
#include <string_view>
#include <vector>

#include <graft/io/words.hpp>

namespace words_tests {

namespace {

std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> result;
  graft::each_word(text, [&](std::string_view word) { result.emplace_back(word); });
  return result;
}
using list = std::vector<std::string>;

}  // namespace

TEST_CASE("words: letters, digits and what stands between", "[io][words]") {
  CHECK(words("The quick_brown fox's 3 x86 CPUs: 1,024 bytes.") ==
        list{"the", "quick", "brown", "fox", "#NUMBER", "x86", "cpus", "#NUMBER", "#NUMBER", "bytes"});
  CHECK(words("").empty());
  CHECK(words("a - b\n").empty());
  // 64 bytes leave no room for another code point of 4 bytes after the 61st.
  CHECK(words(std::string(100, 'k')) == list{std::string(61, 'k'), std::string(39, 'k')});
}

TEST_CASE("words: other scripts", "[io][words]") {
  CHECK(words("ÉTÉ «Straße» l’Œuvre") == list{"été", "straße", "œuvre"});
  CHECK(words("ΑΘΗΝΑ Москва ЁЛКА Žižek") == list{"αθηνα", "москва", "ёлка", "žižek"});
  CHECK(words("日本。ab") == list{"日", "本", "ab"});
  CHECK(words("x\U00020000y") == list{"\U00020000"});
  CHECK(words("wait \U0001F600 ok") == list{"wait", "ok"});
}

TEST_CASE("words: bytes that are no UTF-8 are Latin-1", "[io][words]") {
  CHECK(words("\xC9t\xE9 \xE9tat\xE9") == list{"été", "étaté"});
  CHECK(words("ab\xE2\x82") == list{"abâ"});  // a sequence that the end cuts; 0x82 separates
  CHECK(words("\xF5\xFF\xC0") == list{"õÿà"});
}

TEST_CASE("words: where pieces end does not matter", "[io][words]") {
  const std::string text = "Été 42 日本語 \xE9t\xE9 ab\xE2\x82z Москва \xF0\x9F\x98 end\xC3";
  const list whole = words(text);
  CHECK(whole.size() == 9);
  for (std::size_t size = 1; size < 7; ++size) {
    list found;
    const auto take = [&](std::string_view word) { found.emplace_back(word); };
    graft::word_reader reader;
    for (std::size_t at = 0; at < text.size(); at += size) reader.add(std::string_view(text).substr(at, size), take);
    reader.finish(take);
    CHECK(found == whole);
  }
}

}  // namespace words_tests
