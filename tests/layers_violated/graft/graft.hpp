// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Input of the layer check: misc/unknown.hpp is not reached from here.
#include <graft/train/trainer.hpp>
