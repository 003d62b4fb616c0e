// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Checks of CUDA and cuBLASLt calls: a call that fails becomes a graft::error that names the call, the reason in the
// library's words, and the place. Every call goes through one of these macros, except in destructors, which cannot
// throw and run when there may be nothing left to do about it.

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <graft/core/error.hpp>

namespace graft::detail {

inline void check_cuda(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // who catches this goes on, and CUB would take the error for its own
  raise("CUDA: ", call, " failed with ", cudaGetErrorName(status), " (", cudaGetErrorString(status), ") at ", file, ":",
        line);
}

inline void check_cublas(cublasStatus_t status, const char* call, const char* file, int line) {
  GRAFT_CHECK(status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: ", call, " failed with ", cublasLtGetStatusName(status), " (",
              cublasLtGetStatusString(status), ") at ", file, ":", line);
}

// How many CUDA devices can be used: 0 where there is no device and where there is no driver.
inline int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count;
  (void)cudaGetLastError();  // the answer "none" is no error of a later call
  return 0;
}

// Throws one sentence unless `device` can be used. What cudaGetDeviceCount says of the reason is passed on.
inline void require_device(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();
  GRAFT_CHECK(status == cudaSuccess && count > 0, "device cuda: no CUDA device can be used here (",
              status == cudaSuccess ? "none is present" : cudaGetErrorString(status), "); choose device cpu");
  GRAFT_CHECK(0 <= device && device < count, "device cuda: expected a device number below ", count, ", got ", device);
}

}  // namespace graft::detail

#define GRAFT_CUDA(...) ::graft::detail::check_cuda((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define GRAFT_CUBLAS(...) ::graft::detail::check_cublas((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
