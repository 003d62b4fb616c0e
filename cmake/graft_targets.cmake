# SPDX-FileCopyrightText: 2026 The graft authors
# SPDX-License-Identifier: Apache-2.0
#
# What graft::graft and graft::cuda consist of. The build and the installed package both include this file, so
# that a project that uses graft through add_subdirectory and one that uses find_package get the same.

# Finds the libraries of the CPU backend. A macro: find_package sets variables for the caller.
macro(graft_find_dependencies)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  find_package(Boost 1.74 REQUIRED)
  find_package(nlohmann_json 3.10 REQUIRED)
  find_package(ZLIB REQUIRED)

  # OpenBLAS: the flavour built with OpenMP, wherever the system's alternatives point. The flavour with its own
  # threads would fight with ours over the cores. Debian keeps each flavour in a folder of its own, which
  # also becomes the run path of what links it.
  find_path(GRAFT_OPENBLAS_INCLUDE_DIR NAMES cblas.h PATH_SUFFIXES openblas-openmp openblas)
  find_library(GRAFT_OPENBLAS_LIBRARY NAMES openblas openblaso PATH_SUFFIXES openblas-openmp)
  # oneDNN by its files: the package file of Debian's build demands OpenCL's headers, which graft does not use.
  find_path(GRAFT_ONEDNN_INCLUDE_DIR NAMES oneapi/dnnl/dnnl.hpp)
  find_library(GRAFT_ONEDNN_LIBRARY NAMES dnnl)
  mark_as_advanced(GRAFT_OPENBLAS_INCLUDE_DIR GRAFT_OPENBLAS_LIBRARY GRAFT_ONEDNN_INCLUDE_DIR GRAFT_ONEDNN_LIBRARY)

  graft_import_library(graft::openblas OpenBLAS libopenblas-openmp-dev
    "${GRAFT_OPENBLAS_INCLUDE_DIR}" "${GRAFT_OPENBLAS_LIBRARY}")
  graft_import_library(graft::onednn oneDNN libdnnl-dev "${GRAFT_ONEDNN_INCLUDE_DIR}" "${GRAFT_ONEDNN_LIBRARY}")
endmacro()

function(graft_import_library target name package include_dir library)
  if(TARGET ${target})
    return()
  endif()
  if(NOT include_dir OR NOT library)
    message(FATAL_ERROR "graft: ${name} not found (headers: ${include_dir}, library: ${library}). "
      "On Debian install ${package}, elsewhere set CMAKE_PREFIX_PATH.")
  endif()
  add_library(${target} UNKNOWN IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES
    IMPORTED_LOCATION "${library}" INTERFACE_INCLUDE_DIRECTORIES "${include_dir}")
endfunction()

function(graft_set_up_target target)
  target_compile_features(${target} INTERFACE cxx_std_20)
  target_link_libraries(${target} INTERFACE
    OpenMP::OpenMP_CXX graft::openblas graft::onednn Boost::headers nlohmann_json::nlohmann_json ZLIB::ZLIB)
endfunction()

# Finds the libraries of the CUDA backend and sets GRAFT_CUDA_FOUND.
macro(graft_find_cuda)
  find_package(CUDAToolkit 12.8 QUIET)
  set(GRAFT_CUDA_FOUND OFF)
  if(CUDAToolkit_FOUND AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8 AND CUDAToolkit_NVCC_EXECUTABLE
      AND TARGET CUDA::cublas AND TARGET CUDA::cublasLt)
    set(GRAFT_CUDA_FOUND ON)
    find_path(GRAFT_NCCL_INCLUDE_DIR NAMES nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(GRAFT_NCCL_LIBRARY NAMES nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
    mark_as_advanced(GRAFT_NCCL_INCLUDE_DIR GRAFT_NCCL_LIBRARY)
    if(GRAFT_NCCL_INCLUDE_DIR AND GRAFT_NCCL_LIBRARY)
      graft_import_library(graft::nccl NCCL libnccl-dev "${GRAFT_NCCL_INCLUDE_DIR}" "${GRAFT_NCCL_LIBRARY}")
    endif()
    # cuDNN from 9.11 on, whose plans are made for a device's properties.
    find_path(GRAFT_CUDNN_INCLUDE_DIR NAMES cudnn_version.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(GRAFT_CUDNN_LIBRARY NAMES cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
    mark_as_advanced(GRAFT_CUDNN_INCLUDE_DIR GRAFT_CUDNN_LIBRARY)
    if(GRAFT_CUDNN_INCLUDE_DIR AND GRAFT_CUDNN_LIBRARY)
      file(READ "${GRAFT_CUDNN_INCLUDE_DIR}/cudnn_version.h" graft_cudnn_header)
      string(REGEX MATCH "define CUDNN_MAJOR ([0-9]+)" graft_cudnn_line "${graft_cudnn_header}")
      set(graft_cudnn_version "${CMAKE_MATCH_1}")
      string(REGEX MATCH "define CUDNN_MINOR ([0-9]+)" graft_cudnn_line "${graft_cudnn_header}")
      if("${graft_cudnn_version}.${CMAKE_MATCH_1}" VERSION_GREATER_EQUAL 9.11)
        graft_import_library(graft::cudnn cuDNN libcudnn9-dev-cuda-13 "${GRAFT_CUDNN_INCLUDE_DIR}"
          "${GRAFT_CUDNN_LIBRARY}")
      endif()
    endif()
  endif()
endmacro()

# The CUDA runtime is not linked here: nvcc brings the one that the property CUDA_RUNTIME_LIBRARY names.
function(graft_set_up_cuda_target target)
  if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.26)
    target_compile_features(${target} INTERFACE cuda_std_20)
  else()  # CMake 3.25 does not know that nvcc speaks C++20
    target_compile_options(${target} INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>")
  endif()
  target_compile_definitions(${target} INTERFACE GRAFT_HAS_CUDA=1)
  target_include_directories(${target} SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_options(${target} INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:--extended-lambda;--expt-relaxed-constexpr;-Xcompiler=-fopenmp>")
  target_link_libraries(${target} INTERFACE CUDA::cublas CUDA::cublasLt)
  if(TARGET graft::nccl)
    target_compile_definitions(${target} INTERFACE GRAFT_HAS_NCCL=1)
    target_link_libraries(${target} INTERFACE graft::nccl)
  endif()
  if(TARGET graft::cudnn)
    target_compile_definitions(${target} INTERFACE GRAFT_HAS_CUDNN=1)
    target_link_libraries(${target} INTERFACE graft::cudnn)
  endif()
endfunction()
