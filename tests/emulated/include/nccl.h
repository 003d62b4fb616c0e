// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// NCCL on the emulated device: one rank, with which the collectives are copies.

#include <cuda_runtime.h>

enum ncclResult_t { ncclSuccess = 0, ncclUnhandledCudaError = 1, ncclInvalidArgument = 4 };
enum ncclDataType_t {
  ncclInt8 = 0,
  ncclUint8 = 1,
  ncclInt32 = 2,
  ncclUint32 = 3,
  ncclInt64 = 4,
  ncclUint64 = 5,
  ncclFloat32 = 7,
  ncclFloat64 = 8,
  ncclBfloat16 = 9
};
enum ncclRedOp_t { ncclSum = 0, ncclProd = 1, ncclMax = 2, ncclMin = 3, ncclAvg = 4 };
struct ncclUniqueId {
  char internal[128];
};
using ncclComm_t = struct ncclComm*;

inline const char* ncclGetErrorString(ncclResult_t status) {
  return status == ncclSuccess ? "no error" : "more than one rank, or a refused copy";
}
inline const char* ncclGetLastError(ncclComm_t) { return ""; }
inline ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  *id = {};
  return ncclSuccess;
}
inline ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int ranks, ncclUniqueId, int rank) {
  *communicator = nullptr;
  return ranks == 1 && rank == 0 ? ncclSuccess : ncclInvalidArgument;
}
inline ncclResult_t ncclCommDestroy(ncclComm_t) { return ncclSuccess; }
inline ncclResult_t ncclCommAbort(ncclComm_t) { return ncclSuccess; }
inline ncclResult_t ncclGroupStart() { return ncclSuccess; }
inline ncclResult_t ncclGroupEnd() { return ncclSuccess; }

namespace emulated {
inline ncclResult_t collect(const void* from, void* to, std::size_t count, ncclDataType_t type, cudaStream_t stream) {
  const std::size_t bytes = type == ncclFloat64 || type == ncclInt64 || type == ncclUint64 ? 8
                            : type == ncclBfloat16                                         ? 2
                            : type == ncclInt8 || type == ncclUint8                        ? 1
                                                                                           : 4;
  const cudaError_t status = cudaMemcpyAsync(to, from, count * bytes, cudaMemcpyDeviceToDevice, stream);
  return status == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}
}  // namespace emulated

inline ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                                  ncclComm_t, cudaStream_t stream) {
  return emulated::collect(from, to, count, type, stream);
}
inline ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int, ncclComm_t,
                                  cudaStream_t stream) {
  return emulated::collect(from, to, count, type, stream);
}
inline ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t,
                                      ncclComm_t, cudaStream_t stream) {
  return emulated::collect(from, to, count, type, stream);
}
inline ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclComm_t,
                                  cudaStream_t stream) {
  return emulated::collect(from, to, count, type, stream);
}
