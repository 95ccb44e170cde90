# libsamrt_plugin.so, the attention as a TensorRT plugin, with the kernels inside. TensorRT finds it through the
# functions that it exports. kernels/plugin/tensorrt_interface.h declares the interface, so compiling needs nothing of
# TensorRT.
file(GLOB samrt_plugin_sources CONFIGURE_DEPENDS kernels/plugin/*.cpp)
add_library(samrt_plugin SHARED ${samrt_plugin_sources} $<TARGET_OBJECTS:samrt_kernel_objects>)
target_include_directories(samrt_plugin PRIVATE kernels)
target_compile_options(samrt_plugin PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>)
target_link_options(samrt_plugin PRIVATE ${SAMRT_LINK_EXPORTS})
set_target_properties(samrt_plugin PROPERTIES LINKER_LANGUAGE CUDA CUDA_RUNTIME_LIBRARY Static)

# libsamrt_rtx_name.so, for TensorRT for RTX 1.7 as pip installs it. When its parser reads a plugin's node, it opens
# "libtensorrt_rtx.so" and looks up functions in it. The wheel contains only libtensorrt_rtx.so.1, so no library of that
# name is found, and the process ends. An empty library with this name that depends on the other one, opened before, is
# found instead.
file(WRITE ${PROJECT_BINARY_DIR}/empty.cpp "")
add_library(samrt_rtx_needed SHARED EXCLUDE_FROM_ALL ${PROJECT_BINARY_DIR}/empty.cpp)
set_target_properties(samrt_rtx_needed PROPERTIES OUTPUT_NAME tensorrt_rtx SUFFIX .so.1)
target_link_options(samrt_rtx_needed PRIVATE -nostdlib)
add_library(samrt_rtx_name SHARED ${PROJECT_BINARY_DIR}/empty.cpp)
# No RPATH to the library that it was linked with, because that one is empty too.
set_target_properties(samrt_rtx_name PROPERTIES NO_SONAME TRUE SKIP_BUILD_RPATH TRUE)
target_link_options(samrt_rtx_name PRIVATE -nostdlib -Wl,-soname,libtensorrt_rtx.so -Wl,--no-as-needed)
target_link_libraries(samrt_rtx_name PRIVATE samrt_rtx_needed)
