// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The domains that need no text of one's own: real text of four kinds, and a fifth to test on, from Debian packages.

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <graft/io/domain.hpp>

namespace graft {

// Where the packages' files are: $GRAFT_DATA_ROOT where it is set (packages unpacked by hand), else "/".
inline std::filesystem::path default_data_root() {
  const char* const root = std::getenv("GRAFT_DATA_ROOT");
  return root && *root ? std::filesystem::path(root) : std::filesystem::path("/");
}

namespace detail {

// Manual pages may be unpacked by hand where packages are installed without them; what lies below `root` goes first,
// then what is installed.
inline std::filesystem::path root_that_has(const std::filesystem::path& root, const char* path) {
  return std::filesystem::exists(root / path) ? root : std::filesystem::path("/");
}

// Manual pages of some sections. Other packages put pages in the same folders, thousands on some machines, so
// dpkg's file lists say which pages count, where dpkg knows the packages; the text is then the same on every machine.
inline domain_source manual_pages(std::string name, const std::filesystem::path& root, const char* folder,
                                  std::vector<std::string> sections, const std::vector<std::string>& packages) {
  domain_source source{std::move(name), root / folder};
  source.folders = std::move(sections);
  source.list_root = root;
  for (const std::string& package : packages)
    source.file_lists.push_back(root / "var/lib/dpkg/info" / (package + ".list"));
  return source;
}

}  // namespace detail

// english  technical prose: manual pages of manpages and manpages-dev, sections 1 to 8
// code     C++: Boost's headers (libboost-dev)
// math     formal mathematics: set.mm (metamath-databases)
// french   manual pages of manpages-fr, all sections but 2 and 3
inline std::vector<domain_source> default_domains(const std::filesystem::path& root = default_data_root()) {
  domain_source code{"code", detail::root_that_has(root, "usr/include/boost") / "usr/include/boost"};
  code.suffixes = {".hpp"};
  return {
      detail::manual_pages("english", root, "usr/share/man",
                           {"man1", "man2", "man3", "man4", "man5", "man6", "man7", "man8"},
                           {"manpages", "manpages-dev"}),
      code,
      {"math", detail::root_that_has(root, "usr/share/metamath/databases") / "usr/share/metamath/databases/set.mm"},
      detail::manual_pages("french", root, "usr/share/man/fr", {"man1", "man4", "man5", "man6", "man7", "man8"},
                           {"manpages-fr"}),
  };
}

// french_c, a domain for which no expert is trained: C in French, the manual pages of manpages-fr-dev. manpages-fr
// and manpages-fr-dev share the folder fr; which package a page is from is decided by its section, and sections 2
// (system calls) and 3 (library) are the -dev package's (but for intro.2, which is manpages-fr's and left out of both).
inline domain_source french_c_domain(const std::filesystem::path& root = default_data_root()) {
  return detail::manual_pages("french_c", root, "usr/share/man/fr", {"man2", "man3"}, {"manpages-fr-dev"});
}

}  // namespace graft
