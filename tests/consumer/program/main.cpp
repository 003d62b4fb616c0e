// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// A program of a project that uses graft. Every library that the target brings is called once.

#include "headers.hpp"

#include <cblas.h>
#include <omp.h>
#include <zlib.h>
#include <nlohmann/json.hpp>
#include <oneapi/dnnl/dnnl.hpp>

#include <cstdio>
#include <vector>

double sum_of_random_numbers(int count);  // other.cpp

int main() {
  std::vector<float> storage(6);
  const graft::matrix_view<float> matrix(storage.data(), 2, 3);
  const graft::random_source source{7};
  for (graft::index_t row = 0; row < 2; ++row)
    for (graft::index_t column = 0; column < 3; ++column)
      matrix(row, column) =
          static_cast<float>(source.normal(static_cast<std::uint64_t>(row), static_cast<std::uint64_t>(column)));

  const double sum = sum_of_random_numbers(1000);
  const bool as_expected = matrix.contiguous() && &matrix(1, 2) == &storage[5] && sum > 400 && sum < 600;
  const float squares = cblas_sdot(6, storage.data(), 1, storage.data(), 1);
  const nlohmann::json report = {{"squares", squares},
                                 {"threads", omp_get_max_threads()},
                                 {"onednn", dnnl_version()->major},
                                 {"zlib", zlibVersion()}};
  std::printf("%s\n", report.dump().c_str());
  return as_expected && squares > 0 ? 0 : 1;
}
