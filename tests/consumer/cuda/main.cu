// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// One .cu file with all headers and one with those of the backend link into one program. It needs no GPU to run.

#include <graft/graft.cuh>

#include <cstdio>

int multiprocessors_of_all_devices();  // other.cu

int main() {
  std::printf("graft %d.%d, %d multiprocessors\n", GRAFT_VERSION_MAJOR, GRAFT_VERSION_MINOR,
              multiprocessors_of_all_devices());
}
