// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

#include "headers.hpp"

double sum_of_random_numbers(int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i)
    sum += graft::random_source::uniform(graft::random_source{}.words(0, static_cast<std::uint64_t>(i)).word[0]);
  return sum;
}
