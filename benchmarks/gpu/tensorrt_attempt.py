"""One attempt to build and run a tiny engine, in a process of its own: on an unforeseen GPU it may well crash.

Prints one JSON object per stage reached; the last line says how far it came.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from driver import Driver

_SHAPE = (8, 64)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("flavour")
    parser.add_argument("target", help='"default", "CURRENT", or a compute capability that the flavour names: "SM80"')
    arguments = parser.parse_args()
    from samrt.engines.flavours import import_flavour
    from samrt.engines.logger import collecting_logger

    flavour = import_flavour(arguments.flavour)
    logger = collecting_logger(flavour)
    stage = "imported"
    try:
        plan, weight = _build(flavour.module, logger, arguments.target)
        stage = "built"
        print(json.dumps({"stage": stage}), flush=True)
        difference = _run(flavour.module, logger, plan, weight)
        stage = "ran"
        print(json.dumps({"stage": stage, "correct": difference < 1e-2, "difference": difference}), flush=True)
    except Exception as error:
        text = "; ".join(logger.errors) or f"{type(error).__name__}: {error}"
        print(json.dumps({"stage": stage, "error": text[:800]}), flush=True)
    return 0


def capabilities(flavour: str) -> list[str]:
    """What can be asked for: the default, and each compute capability that the flavour names."""
    from samrt.engines.flavours import import_flavour

    names = getattr(import_flavour(flavour).module, "ComputeCapability", None)
    # Stock TensorRT builds for the GPU at hand only.
    return ["default", *(name for name in (names.__members__ if names else ()) if name != "NONE")]


def _build(trt: Any, logger: Any, target: str) -> tuple[Any, Any]:
    """relu(x @ weight) in half precision."""
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    weight = np.random.default_rng(0).normal(size=(_SHAPE[1], _SHAPE[1])).astype(np.float16)
    x = network.add_input("x", trt.float16, _SHAPE)
    constant = network.add_constant(weight.shape, trt.Weights(weight)).get_output(0)
    none = trt.MatrixOperation.NONE
    product = network.add_matrix_multiply(x, none, constant, none).get_output(0)
    y = network.add_activation(product, trt.ActivationType.RELU).get_output(0)
    y.name = "y"
    network.mark_output(y)
    config = builder.create_builder_config()
    if target != "default":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("the builder returned nothing and gave no reason")
    return plan, weight


def _run(trt: Any, logger: Any, plan: Any, weight: Any) -> float:
    """The largest difference from NumPy, relative to the largest value."""
    driver = Driver()
    stream = driver.new_stream()
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeError("TensorRT refused the engine and gave no reason")
    print(json.dumps({"stage": "deserialised"}), flush=True)
    context = engine.create_execution_context()
    value = np.random.default_rng(1).normal(size=_SHAPE).astype(np.float16)
    with driver.memory(value.nbytes) as x, driver.memory(value.nbytes) as y:
        driver.upload(x, value.tobytes())
        context.set_tensor_address("x", x)
        context.set_tensor_address("y", y)
        if not context.execute_async_v3(stream):
            raise RuntimeError("the engine did not start and gave no reason")
        driver.wait(stream)
        result = np.frombuffer(driver.download(y, value.nbytes), np.float16).reshape(_SHAPE)
    expected = np.maximum(value.astype(np.float32) @ weight.astype(np.float32), 0)
    return float(np.abs(result - expected).max() / expected.max())


if __name__ == "__main__":
    sys.exit(main())
