# Finds TensorRT's headers, and CUDA's, which they include. Sets SAMRT_TENSORRT_HEADERS to the folders, or to nothing.
set(TENSORRT_INCLUDE_DIR "" CACHE PATH "Folder with TensorRT's NvInferRuntime.h, where it is none of the usual ones")
find_path(samrt_tensorrt_folder NvInferRuntime.h
  HINTS ${TENSORRT_INCLUDE_DIR} "$ENV{TENSORRT_INCLUDE_DIR}"
  PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE} /usr/local/tensorrt/include /opt/tensorrt/include NO_CACHE)
find_path(samrt_cuda_folder cuda_runtime_api.h
  HINTS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES} PATHS /usr/local/cuda/include NO_CACHE)
set(SAMRT_TENSORRT_HEADERS "")
if(samrt_tensorrt_folder AND samrt_cuda_folder)
  set(SAMRT_TENSORRT_HEADERS ${samrt_tensorrt_folder} ${samrt_cuda_folder})
endif()
