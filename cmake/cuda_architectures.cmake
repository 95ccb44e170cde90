# Which GPUs the kernels are compiled for.
#
# 8.7 (Jetson Orin) and 11.0 (Jetson Thor) are samrt's targets. The others are for development and servers: 8.0 A100,
# 8.6 RTX 30, 8.9 RTX 40 and L4, 9.0 H100, 10.0 B200, 12.0 RTX 50. Machine code runs on its own architecture and on later
# ones of the same major version (12.0's on 12.1, 10.0's on 10.3). Exception: Jetsons' code runs only on the same Jetson
# architecture. A new major version needs PTX, which the driver compiles when the library is loaded. Architectures before
# 8.0 lack cp.async and bfloat16's mma.
set(SAMRT_ARCHITECTURES 80 86 87 89 90 100 110 120)
set(SAMRT_OLDEST_ARCHITECTURE 80)

# Converts the request ("all", "native" or numbers) to CMake's notation, in CMAKE_CUDA_ARCHITECTURES, and to
# SAMRT_COMPILED_ARCHITECTURES ("87", or "80;...;120;120-ptx"). Call it after enable_language(CUDA).
macro(samrt_choose_architectures requested)
  set(SAMRT_COMPILED_ARCHITECTURES "")
  set(SAMRT_DROPPED_ARCHITECTURES "")
  if("${requested}" STREQUAL "all")
    foreach(architecture IN LISTS SAMRT_ARCHITECTURES)
      if(architecture IN_LIST SAMRT_NVCC_ARCHITECTURES)
        list(APPEND SAMRT_COMPILED_ARCHITECTURES ${architecture})
      else()
        list(APPEND SAMRT_DROPPED_ARCHITECTURES ${architecture})
      endif()
    endforeach()
    if(SAMRT_DROPPED_ARCHITECTURES)
      # CUDA 12.6 (JetPack 6) does not support 100, 110 and 120.
      message(NOTICE "samrt: nvcc ${SAMRT_NVCC_VERSION} cannot compile for ${SAMRT_DROPPED_ARCHITECTURES}; left out")
    endif()
  elseif("${requested}" STREQUAL "native")
    if(NOT CMAKE_CUDA_ARCHITECTURES_NATIVE)
      message(FATAL_ERROR "samrt: no GPU was found to compile for; use its architecture, such as 87, instead of \"native\"")
    endif()
    string(REPLACE "-real" "" SAMRT_COMPILED_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES_NATIVE}")
    set(new_enough ${SAMRT_COMPILED_ARCHITECTURES})
    list(FILTER new_enough EXCLUDE REGEX "^[1-7][0-9]$")
    if(new_enough)  # an older GPU beside one that the kernels run on
      set(SAMRT_COMPILED_ARCHITECTURES ${new_enough})
    endif()
  else()
    set(SAMRT_COMPILED_ARCHITECTURES ${requested})
  endif()

  foreach(architecture IN LISTS SAMRT_COMPILED_ARCHITECTURES)
    if(NOT architecture MATCHES "^[0-9]+$")
      message(FATAL_ERROR "samrt: \"${architecture}\" is not an architecture; use all, native, or numbers such as 80;87")
    elseif(architecture LESS SAMRT_OLDEST_ARCHITECTURE)
      message(FATAL_ERROR "samrt: the kernels need compute capability 8.0 or newer, not ${architecture}")
    elseif(NOT architecture IN_LIST SAMRT_NVCC_ARCHITECTURES)
      message(FATAL_ERROR "samrt: nvcc ${SAMRT_NVCC_VERSION} cannot compile for ${architecture}; it supports "
                          "${SAMRT_NVCC_ARCHITECTURES}")
    endif()
  endforeach()

  list(TRANSFORM SAMRT_COMPILED_ARCHITECTURES APPEND "-real" OUTPUT_VARIABLE CMAKE_CUDA_ARCHITECTURES)
  if("${requested}" STREQUAL "all")
    # For GPUs that are newer than this nvcc.
    list(GET SAMRT_COMPILED_ARCHITECTURES -1 newest)
    list(APPEND CMAKE_CUDA_ARCHITECTURES "${newest}-virtual")
    list(APPEND SAMRT_COMPILED_ARCHITECTURES "${newest}-ptx")
  endif()
endmacro()
