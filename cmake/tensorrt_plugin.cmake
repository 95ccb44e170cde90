# libsamrt_plugin.so, the attention as a TensorRT plugin, with the kernels inside. TensorRT finds it through functions
# that it exports, so headers are enough to compile it: no TensorRT is linked.
include(find_tensorrt_headers)
if(NOT SAMRT_TENSORRT_HEADERS)
  set(SAMRT_PLUGIN_SKIPPED "TensorRT's headers were not found (NvInferRuntime.h)")
  message(NOTICE "samrt: the TensorRT plugin is left out: ${SAMRT_PLUGIN_SKIPPED}. They are in the package "
                 "libnvinfer-headers-dev (NVIDIA's for apt, JetPack's) and in TensorRT's archive; where they lie in no "
                 "usual place, set TENSORRT_INCLUDE_DIR to the folder")
  return()
endif()
message(STATUS "samrt: TensorRT's headers: ${SAMRT_TENSORRT_HEADERS}")

file(GLOB samrt_plugin_sources CONFIGURE_DEPENDS kernels/plugin/*.cpp)
add_library(samrt_plugin SHARED ${samrt_plugin_sources} $<TARGET_OBJECTS:samrt_kernel_objects>)
target_include_directories(samrt_plugin PRIVATE kernels)
# As system headers: their warnings are not ours.
target_include_directories(samrt_plugin SYSTEM PRIVATE ${SAMRT_TENSORRT_HEADERS})
target_compile_options(samrt_plugin PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
target_link_options(samrt_plugin PRIVATE ${SAMRT_LINK_EXPORTS})
set_target_properties(samrt_plugin PROPERTIES LINKER_LANGUAGE CUDA CUDA_RUNTIME_LIBRARY Static)
