# Finds nvcc, and asks it which architectures it supports. Finding none is not an error.
#
# Sets SAMRT_NVCC (empty if there is none), SAMRT_NVCC_VERSION ("13.0.88") and SAMRT_NVCC_ARCHITECTURES ("80;86;...").
# CMAKE_CUDA_COMPILER and the environment variable CUDACXX come first, as everywhere in CMake; then PATH; then the folders
# where the toolkit's and JetPack's installers put nvcc without adding it to PATH; then SAMRT_NVCC_FALLBACK, which
# kernels/build.py sets to the nvcc of the package index's wheels.

set(SAMRT_NVCC "")
if(CMAKE_CUDA_COMPILER)
  set(SAMRT_NVCC "${CMAKE_CUDA_COMPILER}")
elseif(DEFINED ENV{CUDACXX} AND NOT "$ENV{CUDACXX}" STREQUAL "")
  set(SAMRT_NVCC "$ENV{CUDACXX}")
else()
  find_program(samrt_found_nvcc nvcc PATHS /usr/local/cuda/bin "$ENV{CUDA_PATH}/bin" ${SAMRT_NVCC_FALLBACK} NO_CACHE)
  if(samrt_found_nvcc)
    set(SAMRT_NVCC "${samrt_found_nvcc}")
  endif()
endif()

if(SAMRT_NVCC)
  execute_process(COMMAND "${SAMRT_NVCC}" --version OUTPUT_VARIABLE samrt_version RESULT_VARIABLE samrt_failed)
  execute_process(COMMAND "${SAMRT_NVCC}" --list-gpu-arch OUTPUT_VARIABLE samrt_list RESULT_VARIABLE samrt_list_failed)
  if(samrt_failed OR samrt_list_failed)
    message(FATAL_ERROR "samrt: ${SAMRT_NVCC} does not run: repair it, or set CUDACXX to another nvcc")
  endif()
  string(REGEX MATCH "V([0-9.]+)" samrt_version "${samrt_version}")
  set(SAMRT_NVCC_VERSION "${CMAKE_MATCH_1}")
  string(REGEX MATCHALL "compute_[0-9]+" SAMRT_NVCC_ARCHITECTURES "${samrt_list}")
  list(TRANSFORM SAMRT_NVCC_ARCHITECTURES REPLACE "compute_" "")
endif()
