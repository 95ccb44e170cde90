"""Running engines of TensorRT and TensorRT-RTX on a GPU."""
