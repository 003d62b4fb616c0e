// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Domains: which files a source names, what is left out and counted, and the sentence of each error.

#include "catch.hpp"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <graft/io/default_domains.hpp>
#include <graft/io/domain.hpp>

#include "io/text_test.hpp"

namespace domain_tests {

namespace fs = std::filesystem;

namespace {

std::vector<std::string> names(const graft::domain_listing& listing) {
  std::vector<std::string> result;
  for (const auto& file : listing.files) result.push_back(file.relative);
  return result;
}

using strings = std::vector<std::string>;

}  // namespace

TEST_CASE("list_domain: a folder to the bottom, in order, without what is no text", "[io][domain]") {
  const io_test::scratch_folder folder;
  fs::create_directories(folder / "b/c");
  io_test::write_bytes(folder / "b.txt", "b");
  io_test::write_bytes(folder / "b/c/deep.txt", "deep");
  io_test::append_gzip(folder / "a.gz", "packed");
  io_test::write_bytes(folder / "binary", std::string("a\0b", 3));
  io_test::append_gzip(folder / "binary.gz", std::string("c\0d", 3));
  io_test::write_bytes(folder / "empty", "");
  io_test::write_bytes(folder / "z-copy.txt", "deep");
  fs::create_hard_link(folder / "b.txt", folder / "y-link.txt");
  fs::create_symlink("b.txt", folder / "x-symbolic.txt");
  fs::create_symlink("nothing", folder / "dangling");
  fs::create_symlink("loop", folder / "loop");
  fs::create_directory_symlink("..", folder / "b/up");
  const graft::domain_listing listing = graft::list_domain({"d", folder.path()});
  // Copies and links come after the file they repeat: 'b.txt' < 'b/c/deep.txt' as bytes.
  CHECK(names(listing) == strings{"a.gz", "b.txt", "b/c/deep.txt"});
  CHECK(listing.found == 9);
  CHECK(listing.binaries == 2);
  CHECK(listing.empty == 1);
  CHECK(listing.duplicates == 3);
  CHECK(listing.dangling == 2);
  CHECK(listing.kind == graft::source_kind::text);
}

TEST_CASE("list_domain: folders, suffixes and lists restrict", "[io][domain]") {
  const io_test::scratch_folder folder;
  fs::create_directories(folder / "man1");
  fs::create_directories(folder / "man2/man1");
  fs::create_directories(folder / "other");
  for (const char* name : {"top.1", "man1/a.1", "man1/b.txt", "man2/c.1", "man2/man1/d.1", "other/e.1"})
    io_test::write_bytes(folder / name, name);
  graft::domain_source source{"d", folder.path()};
  source.suffixes = {".1"};
  source.folders = {"man1", "man2"};
  CHECK(names(graft::list_domain(source)) == strings{"man1/a.1", "man2/c.1", "man2/man1/d.1"});
  source.folders = {"nothing"};
  CHECK_ERROR(graft::list_domain(source), "'d'", folder.path().string(), "*.1", "in nothing", "without any");
  source.folders.clear();
  source.list_root = folder.path();
  source.file_lists = {folder / "a.list", folder / "b.list"};
  CHECK(graft::list_domain(source).files.size() == 5);  // no lists, no restriction
  io_test::write_bytes(folder / "a.list", "/.\n/man1/a.1\n");
  io_test::write_bytes(folder / "b.list", "/other/e.1\n/other/gone.1\n");
  CHECK(names(graft::list_domain(source)) == strings{"man1/a.1", "other/e.1"});
}

TEST_CASE("list_domain: manual pages get the troff filter", "[io][domain]") {
  const io_test::scratch_folder folder;
  io_test::append_gzip(folder / "open.2.gz", ".TH open 2\n.SH NAME\nopen\n");
  io_test::write_bytes(folder / "x.3pm", "'\\\" t\n.TH x 3\n");
  io_test::write_bytes(folder / "notes.1", "no macros here\n");
  io_test::write_bytes(folder / "page.txt", ".TH open 2 in the wrong place\n");
  graft::domain_source source{"d", folder.path()};
  strings troff;
  for (const auto& file : graft::list_domain(source).files)
    if (file.troff) troff.push_back(file.relative);
  CHECK(troff == strings{"open.2.gz", "x.3pm"});
  source.filter = graft::text_filter::none;
  for (const auto& file : graft::list_domain(source).files) CHECK(!file.troff);
  source.filter = graft::text_filter::troff;
  for (const auto& file : graft::list_domain(source).files) CHECK(file.troff);
}

TEST_CASE("list_domain: what cannot be a domain", "[io][domain]") {
  const io_test::scratch_folder folder;
  const std::string place = folder.path().string();
  CHECK_ERROR(graft::list_domain({"d", folder / "none"}), "'d'", place + "/none", "expected a file or folder",
              "found nothing");
  CHECK_ERROR(graft::list_domain({"d", "/dev/null"}), "/dev/null", "expected a file or folder", "something else");
  CHECK_ERROR(graft::list_domain({"d", folder.path()}), place, "expected files of text", "a folder without any");
  io_test::write_bytes(folder / "empty", "");
  CHECK_ERROR(graft::list_domain({"d", folder / "empty"}), place + "/empty", "found an empty file");
  CHECK_ERROR(graft::list_domain({"d", folder.path()}), place, "found 1 empty files");
  io_test::write_bytes(folder / "a", std::string(100, '\0'));
  CHECK_ERROR(graft::list_domain({"d", folder.path()}), place, "expected text", "found 1 binary file");
  CHECK_ERROR(graft::list_domain({"d", folder / "a"}), place + "/a", "found 1 binary file");
  io_test::write_bytes(folder / "b", std::string(100, '\1') + std::string(1, '\0'));
  CHECK_ERROR(graft::list_domain({"d", folder.path()}), place, "found 2 binary files");
  for (const char* name : {"", "a/b", ".hidden", "a b"})
    CHECK_ERROR(graft::list_domain({name, folder.path()}), "'" + std::string(name) + "'", "expected a name");
}

TEST_CASE("list_domain: text and token files", "[io][domain]") {
  const io_test::scratch_folder folder;
  io_test::write_bytes(folder / "a.txt", "text");
  io_test::write_bytes(folder / "a.bin", "GRAFTTOK and so on");
  graft::domain_source source{"d", folder.path()};
  CHECK_ERROR(graft::list_domain(source), folder.path().string(), "found both (1 and 1)");
  source.kind = graft::source_kind::text;
  CHECK(names(graft::list_domain(source)) == strings{"a.txt"});
  CHECK(graft::list_domain(source).binaries == 1);
  source.kind = graft::source_kind::tokens;
  CHECK(names(graft::list_domain(source)) == strings{"a.bin"});
  fs::remove(folder / "a.txt");
  source.kind = graft::source_kind::automatic;
  CHECK(graft::list_domain(source).kind == graft::source_kind::tokens);
}

TEST_CASE("default_domains: a root of unpacked packages", "[io][domain]") {
  const io_test::scratch_folder root;
  for (const char* path : {"usr/share/man/man2/open.2", "usr/share/man/fr/man1/ls.1", "usr/share/man/fr/man2/open.2",
                           "usr/share/man/de/man1/ls.1", "usr/include/boost/any.hpp", "usr/include/boost/any.ipp",
                           "usr/share/metamath/databases/set.mm"}) {
    fs::create_directories((root / path).parent_path());
    io_test::write_bytes(root / path, std::string(path) + ".TH");
  }
  std::string found;
  for (const auto& source : graft::default_domains(root.path())) {
    found += source.name + ":";
    for (const auto& file : graft::list_domain(source).files) found += " " + file.relative;
    found += "\n";
  }
  CHECK(found == "english: man2/open.2\ncode: any.hpp\nmath: set.mm\nfrench: man1/ls.1\n");
  CHECK(names(graft::list_domain(graft::french_c_domain(root.path()))) == strings{"man2/open.2"});

  // A root that has only pages: the rest is taken from where packages are installed.
  fs::remove_all(root / "usr/include");
  CHECK(graft::default_domains(root.path())[1].path == "/usr/include/boost");
  CHECK(graft::default_domains(root.path())[0].path == root / "usr/share/man");

  // Where dpkg knows the packages, pages of others do not count.
  io_test::write_bytes(root / "usr/share/man/man2/other.2", "another package's");
  fs::create_directories(root / "var/lib/dpkg/info");
  io_test::write_bytes(root / "var/lib/dpkg/info/manpages.list", "/usr/share/man/man7/man.7.gz\n");
  io_test::write_bytes(root / "var/lib/dpkg/info/manpages-dev.list", "/usr/share/man/man2/open.2\n");
  CHECK(names(graft::list_domain(graft::default_domains(root.path())[0])) == strings{"man2/open.2"});
}

}  // namespace domain_tests
