// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Input of the layer check: nothing wrong here.
#include <vector>
// #include <graft/analysis/commented_out.hpp>
#include <graft/core/upward.hpp>
