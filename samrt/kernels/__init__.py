"""The CUDA kernels' C interface, on device addresses."""
