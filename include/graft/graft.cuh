// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything, on the CPU and on CUDA. Programs that need to compile quickly include the headers of what they use.
// In a .cu file write graft::cuda, or work inside a namespace of graft: after `using namespace graft` the name `cuda`
// means the CUDA Toolkit's own namespace ::cuda as well.

#include <graft/backend/cuda/cuda.cuh>
#include <graft/graft.hpp>
