"""CUDA devices through NVIDIA's own bindings: GPUs, streams, memory and arrays."""
