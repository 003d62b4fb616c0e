// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Input of the layer check: each line breaks one rule.
#include <cuda_runtime.h>                 // the Toolkit
#include <cub/block/block_reduce.cuh>     // two rules in one: neither a .cuh nor the Toolkit, counted once
#include <graft/backend/cuda/kernel.cuh>  // a higher layer, and a .cuh in a .hpp
#include <graft/core/absent.hpp>          // does not exist
#include <graft/train/trainer.hpp>        // a higher layer
#include "quoted.hpp"
