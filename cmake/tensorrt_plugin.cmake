# libsamrt_plugin.so, the attention as a TensorRT plugin, with the kernels inside. TensorRT finds it through functions
# that it exports, and kernels/plugin/tensorrt_interface.h has what is called across the border: nothing of TensorRT is
# needed to compile it.
file(GLOB samrt_plugin_sources CONFIGURE_DEPENDS kernels/plugin/*.cpp)
add_library(samrt_plugin SHARED ${samrt_plugin_sources} $<TARGET_OBJECTS:samrt_kernel_objects>)
target_include_directories(samrt_plugin PRIVATE kernels)
target_compile_options(samrt_plugin PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
target_link_options(samrt_plugin PRIVATE ${SAMRT_LINK_EXPORTS})
set_target_properties(samrt_plugin PROPERTIES LINKER_LANGUAGE CUDA CUDA_RUNTIME_LIBRARY Static)

# libsamrt_rtx_name.so, for TensorRT for RTX 1.7 as pip installs it. When its parser meets a plugin's node it opens
# "libtensorrt_rtx.so" and takes functions from it. The wheel holds libtensorrt_rtx.so.1 alone, so nothing of that name is
# found, and the process ends. An empty library that has the name and needs the other, opened before, is found.
file(WRITE ${PROJECT_BINARY_DIR}/empty.cpp "")
add_library(samrt_rtx_needed SHARED EXCLUDE_FROM_ALL ${PROJECT_BINARY_DIR}/empty.cpp)
set_target_properties(samrt_rtx_needed PROPERTIES OUTPUT_NAME tensorrt_rtx SUFFIX .so.1)
target_link_options(samrt_rtx_needed PRIVATE -nostdlib)
add_library(samrt_rtx_name SHARED ${PROJECT_BINARY_DIR}/empty.cpp)
# No path to the library that it was linked with: that one is empty too.
set_target_properties(samrt_rtx_name PROPERTIES NO_SONAME TRUE SKIP_BUILD_RPATH TRUE)
target_link_options(samrt_rtx_name PRIVATE -nostdlib -Wl,-soname,libtensorrt_rtx.so -Wl,--no-as-needed)
target_link_libraries(samrt_rtx_name PRIVATE samrt_rtx_needed)
