// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The whole CUDA backend. A translation unit that needs no scan or sort saves 7 s of compile time by including what it
// uses instead.

#include <graft/backend/cuda/arrays.cuh>
#include <graft/backend/cuda/attention.cuh>
#include <graft/backend/cuda/cached_attention.cuh>
#include <graft/backend/cuda/communicator.cuh>
#include <graft/backend/cuda/context.cuh>
#include <graft/backend/cuda/gemm.cuh>
#include <graft/backend/cuda/graph.cuh>
#include <graft/backend/cuda/grouped_gemm.cuh>
#include <graft/backend/cuda/grouped_swiglu.cuh>
#include <graft/backend/cuda/rows.cuh>
#include <graft/backend/cuda/scan_sort.cuh>
#include <graft/backend/cuda/staging.cuh>
