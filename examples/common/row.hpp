// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A row of the table from the folder of a model or an assembly and its evaluation.

#include <filesystem>
#include <vector>

#include "common/results.hpp"

namespace examples {

result_row make_row(const std::filesystem::path& folder, std::vector<graft::evaluation> evaluations);

}  // namespace examples
