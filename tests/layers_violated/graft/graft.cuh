// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Input of the layer check: nothing wrong here.
#include <graft/backend/cuda/kernel.cuh>
#include <graft/graft.hpp>
#include <graft/misc/unknown.hpp>
