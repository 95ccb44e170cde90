# libsamrt_kernels.so, compiled by nvcc. The plugin uses the same object files (samrt_kernel_objects).
include(cuda_architectures)

set(samrt_requested all)
if(DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(samrt_requested "${CMAKE_CUDA_ARCHITECTURES}")
elseif(DEFINED ENV{CUDAARCHS})
  set(samrt_requested "$ENV{CUDAARCHS}")
endif()
set(CMAKE_CUDA_COMPILER "${SAMRT_NVCC}")
# Every nvcc supports it. CMake's test of the compiler must not depend on the requested architectures.
set(CMAKE_CUDA_ARCHITECTURES ${SAMRT_OLDEST_ARCHITECTURE})
enable_language(CUDA)
samrt_choose_architectures("${samrt_requested}")
message(STATUS "samrt: nvcc ${SAMRT_NVCC_VERSION}, architectures ${SAMRT_COMPILED_ARCHITECTURES}")

configure_file(kernels/common/architectures.cpp.in common/architectures.cpp @ONLY)
add_library(samrt_kernel_objects OBJECT ${SAMRT_KERNEL_SOURCES})
target_include_directories(samrt_kernel_objects PUBLIC kernels PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_options(samrt_kernel_objects PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>
  # Kernels call constexpr functions too, for example those of the tile shapes.
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra>)
if(SAMRT_RESOURCE_REPORT)
  target_compile_options(samrt_kernel_objects PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v>)
  set_target_properties(samrt_kernel_objects PROPERTIES
    CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/cmake/keep_report.sh)
  add_executable(samrt_print_tiles kernels/tools/print_tiles.cpp)
  target_include_directories(samrt_print_tiles PRIVATE kernels)
endif()

add_library(samrt_kernels SHARED $<TARGET_OBJECTS:samrt_kernel_objects>)
# The CUDA runtime is linked in, so the library needs only the driver.
set_target_properties(samrt_kernels PROPERTIES LINKER_LANGUAGE CUDA CUDA_RUNTIME_LIBRARY Static)
# Each library calls its own kernels, even in a process that has loaded both.
set(SAMRT_LINK_EXPORTS -Wl,-Bsymbolic -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/exports.map)
target_link_options(samrt_kernels PRIVATE ${SAMRT_LINK_EXPORTS})
