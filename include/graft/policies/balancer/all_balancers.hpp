// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every balancer of graft.

#include <graft/policies/balancer/all.hpp>
#include <graft/policies/balancer/balancer.hpp>
#include <graft/policies/balancer/btx_loss.hpp>
#include <graft/policies/balancer/dirichlet_prior.hpp>
#include <graft/policies/balancer/global_batch_loss.hpp>
#include <graft/policies/balancer/loss_free_bias.hpp>
#include <graft/policies/balancer/sequence_loss.hpp>
#include <graft/policies/balancer/switch_loss.hpp>
#include <graft/policies/balancer/z_loss.hpp>
