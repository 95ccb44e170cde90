"""Engines of TensorRT in a bundle: which there are, and which of them fits this machine."""
