"""TensorRT and TensorRT for RTX: from a bundle's ONNX graphs to engines. Importing this imports neither of them."""
