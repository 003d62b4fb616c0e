// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The whole CPU backend.

#include <graft/backend/cpu/arrays.hpp>
#include <graft/backend/cpu/context.hpp>
#include <graft/backend/cpu/gemm.hpp>
#include <graft/backend/cpu/rows.hpp>
