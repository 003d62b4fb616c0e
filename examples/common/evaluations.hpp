// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Evaluations kept as files: a run that is given again finds them, numbers and times as they were.

#include <filesystem>

#include "common/engine.hpp"

namespace examples {

// Evaluates a model, or finds that this was done: FILE holds the result of one job, of one model by the signature in
// its graft.json. A file that is of another job or cannot be read is replaced.
evaluation_result evaluate_once(engine& engine, const evaluation_job& job, const fs::path& file);

}  // namespace examples
