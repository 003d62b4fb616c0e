// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Input of the layer check: nothing wrong here, a .cuh may use the Toolkit.
#include <cuda_runtime.h>
#include <cub/block/block_reduce.cuh>
