// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Token files: what is written is read, and every way in which a file can be wrong has its sentence.

#include "catch.hpp"

#include <cstring>
#include <string>
#include <vector>

#include <graft/io/token_file.hpp>
#include <graft/io/token_file_writer.hpp>

#include "io/io_test.hpp"

namespace token_file_tests {

namespace {

std::vector<std::int32_t> all(const graft::token_file& file) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.size()));
  file.read(0, tokens);
  return tokens;
}

template <class T>
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

std::string npy(const std::string& descr, const std::string& shape, const std::string& data) {
  std::string header = "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
  header.resize((10 + header.size() + 64) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 255);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + data;
}

}  // namespace

TEST_CASE("token_file: what the writer wrote, for both widths", "[io][token_file]") {
  const io_test::scratch_folder folder;
  const graft::index_t vocabulary = GENERATE(257, 65536, 65537, 200000);
  const auto path = folder / "a.bin";
  std::vector<std::int32_t> tokens(300001);  // more than the buffers
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(i * 7919 % static_cast<std::size_t>(vocabulary));
  graft::token_file_writer writer(path, {static_cast<graft::index_t>(tokens.size()), vocabulary, 256, 299000});
  writer.append(std::span(tokens).first(1000));
  CHECK(!std::filesystem::exists(path));  // not before it is complete
  writer.append(std::span(tokens).subspan(1000));
  writer.finish();

  const graft::token_file file(path);
  CHECK(file.size() == 300001);
  CHECK(file.vocabulary() == vocabulary);
  CHECK(file.end_of_text() == 256);
  CHECK(file.text_bytes() == 299000);
  CHECK(std::filesystem::file_size(path) == 64 + tokens.size() * (vocabulary <= 65536 ? 2 : 4));
  CHECK((all(file) == tokens));
  std::vector<std::int32_t> piece(10);
  file.read(299991, piece);
  CHECK(piece == std::vector<std::int32_t>(tokens.end() - 10, tokens.end()));
  CHECK_ERROR(file.read(299992, piece), path.string(), "[0, 300001)", "[299992, 300002)");
  CHECK_ERROR(file.read(-1, piece), "[-1, 9)");
}

TEST_CASE("token_file_writer: leaves nothing behind when it is not finished", "[io][token_file]") {
  const io_test::scratch_folder folder;
  {
    graft::token_file_writer writer(folder / "a.bin", {3, 257});
    CHECK_ERROR(writer.append(std::vector<std::int32_t>{1, 257}), "from 0 to 256", "257", "position 1");
    CHECK_ERROR(writer.finish(), "expected 3 tokens", "got 1");
  }
  CHECK(folder.names().empty());
}

TEST_CASE("token_file: npy files of every type", "[io][token_file]") {
  const io_test::scratch_folder folder;
  const auto path = folder / "a.npy";
  const std::vector<std::int32_t> expected{1, 2, 50000};
  io_test::write_bytes(path, npy("<u2", "(3,)", raw(std::vector<std::uint16_t>{1, 2, 50000})));
  CHECK(all(graft::token_file(path)) == expected);
  io_test::write_bytes(path, npy("<u4", "(3,)", raw(std::vector<std::uint32_t>{1, 2, 50000})));
  CHECK(all(graft::token_file(path)) == expected);
  io_test::write_bytes(path, npy("<i4", "(3,)", raw(std::vector<std::int32_t>{1, 2, 50000})));
  CHECK(all(graft::token_file(path)) == expected);
  io_test::write_bytes(path, npy("<i8", "(3,)", raw(std::vector<std::int64_t>{1, 2, 50000})));
  CHECK(all(graft::token_file(path)) == expected);
  CHECK(graft::token_file(path).end_of_text() == -1);
  CHECK_ERROR(all(graft::token_file(path, 257)), path.string(), "from 0 to 256", "50000", "position 2");
  io_test::write_bytes(path, npy("<i4", "(2,)", raw(std::vector<std::int32_t>{1, -1})));
  CHECK_ERROR(all(graft::token_file(path)), path.string(), "found -1", "position 1");
  io_test::write_bytes(path, npy("<i8", "(2,)", raw(std::vector<std::int64_t>{1, std::int64_t{1} << 40})));
  CHECK_ERROR(all(graft::token_file(path)), "1099511627776");
}

TEST_CASE("token_file: npy files that are wrong", "[io][token_file]") {
  const io_test::scratch_folder folder;
  const auto path = folder / "a.npy";
  const auto refuses = [&](const std::string& bytes, std::initializer_list<std::string> pieces) {
    io_test::write_bytes(path, bytes);
    const std::string message = io_test::message_of([&] { graft::token_file file(path); });
    INFO(message);
    CHECK(io_test::lacking(message, pieces) == "");
    CHECK(message.find(path.string()) == 0);
  };
  const std::string data = raw(std::vector<std::uint16_t>{1, 2, 3});
  refuses(npy("<f4", "(3,)", data), {"'<u2', '<u4', '<i4' or '<i8'", "'<f4'"});
  refuses(npy(">u2", "(3,)", data), {"'>u2'"});
  refuses(npy("<u2", "(3, 1)", data), {"one axis", "(3, 1)"});
  refuses(npy("<u2", "()", data), {"one axis", "()"});
  refuses(npy("<u2", "(4,)", data), {"4 elements of 2 bytes", "6 bytes"});
  refuses(npy("<u2", "(3,)", data + "x"), {"3 elements of 2 bytes", "7 bytes"});
  refuses(npy("<u2", "(99999999999999999999,)", data), {"10^18"});
  refuses(npy("<u2", "(3,)", data).substr(0, 40), {"header", "40 bytes"});
  refuses(npy("<u2", "(3,)", data).substr(0, 9), {"header", "9 bytes"});
  refuses(std::string("\x93NUMPY\x09\x00\x10\x00", 10), {"version 1 to 3", "version 9"});
  refuses("", {"found 0 bytes"});
  refuses("plain text, not tokens", {"GRAFTTOK"});
}

TEST_CASE("token_file: bin files that are wrong", "[io][token_file]") {
  const io_test::scratch_folder folder;
  const auto path = folder / "a.bin";
  graft::token_file_header good;
  good.count = 3;
  good.vocabulary = 257;
  const auto refuses = [&](const graft::token_file_header& header, const std::string& data,
                           std::initializer_list<std::string> pieces, graft::index_t vocabulary = 0) {
    io_test::write_bytes(path, std::string(reinterpret_cast<const char*>(&header), sizeof header) + data);
    const std::string message = io_test::message_of([&] { all(graft::token_file(path, vocabulary)); });
    INFO(message);
    CHECK(io_test::lacking(message, pieces) == "");
    CHECK(message.find(path.string()) == 0);
  };
  const std::string data = raw(std::vector<std::uint16_t>{1, 2, 3});
  io_test::write_bytes(path, std::string(reinterpret_cast<const char*>(&good), sizeof good) + data);
  CHECK(all(graft::token_file(path)) == std::vector<std::int32_t>{1, 2, 3});  // the control

  refuses(good, data.substr(0, 5), {"3 tokens of 2 bytes", "5 bytes"});
  refuses(good, data + "ab", {"3 tokens of 2 bytes", "8 bytes"});
  auto wrong = good;
  wrong.token_bytes = 8;
  refuses(wrong, data, {"2 or 4 bytes a token", "8"});
  wrong = good;
  wrong.version = 2;
  refuses(wrong, data, {"version 1", "version 2"});
  wrong = good;
  wrong.zero[3] = 1;
  refuses(wrong, data, {"zeros", "1"});
  wrong = good;
  wrong.count = ~std::uint64_t{0} / 2 + 4;  // times two wraps around to 6
  refuses(wrong, data, {"tokens of 2 bytes", "6 bytes"});
  wrong = good;
  wrong.vocabulary = 3;
  refuses(wrong, data, {"from 0 to 2", "found 3", "position 2"});
  wrong.vocabulary = 50257;
  refuses(wrong, data, {"at most 257", "50257"}, 257);
  io_test::write_bytes(path, "GRAFTTOK123");
  CHECK_ERROR(graft::token_file(path), "header of 64 bytes", "11 bytes");
  CHECK_ERROR(graft::token_file(folder / "none.bin"), "none.bin", "No such file");
  CHECK_ERROR(graft::token_file(folder.path()), "no regular file");
}

}  // namespace token_file_tests
