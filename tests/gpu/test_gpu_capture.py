"""A kernel of ours through samrt's own CUDA layer, without TensorRT: captured, replayed, its arrays handed on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samrt.backends.tensorrt.graphs import capture
from samrt.device.array import DeviceArray, view_device_array
from samrt.device.driver import check
from samrt.device.session import DeviceSession
from samrt.kernels.library import AttentionShape, AttentionTensors, Kernels

sys.path.append(str(Path(__file__).resolve().parents[1] / "kernels"))

from attention_cases import Case, make
from formats import from_bits, to_bits
from reference import Tensors, attention

CASE, HEAD_DIM = Case(9, 20, heads=2, window=14), 64
SHAPE = AttentionShape(CASE.batch, CASE.grid_h, CASE.grid_w, CASE.heads, HEAD_DIM, CASE.window)
OUT = (CASE.batch, CASE.grid_h * CASE.grid_w, CASE.heads * HEAD_DIM)


class Layer:
    """An attention layer whose tensors are on the device; `qkv` may be exchanged for a view of somebody else's."""

    def __init__(self, kernels: Kernels, session: DeviceSession) -> None:
        self.kernels, self.session = kernels, session
        self.host: Tensors = make(CASE, "fp16", HEAD_DIM)
        self.qkv, self.qkv_bias, self.rel_pos_h, self.rel_pos_w = (
            self.upload(tensor)
            for tensor in (self.host.qkv, self.host.qkv_bias, self.host.rel_pos_h, self.host.rel_pos_w)
        )
        self.out = self.upload(np.full(OUT, np.nan))

    def upload(self, values: Any, into: DeviceArray | None = None) -> DeviceArray:
        bits = to_bits(values, "fp16")
        array = into or DeviceArray(self.session.allocate(bits.nbytes), values.shape, np.float16)
        driver = importlib.import_module("cuda.bindings.driver")
        with self.session.current():
            check(driver.cuMemcpyHtoD(array.ptr, bits.ctypes.data, bits.nbytes), "an upload")
        return array

    def enqueue(self, stream: int) -> None:
        tensors = (self.qkv, self.out, self.qkv_bias, self.rel_pos_h, self.rel_pos_w)
        self.kernels.attention(SHAPE, AttentionTensors(*(tensor.ptr for tensor in tensors)), stream)

    def run(self) -> None:
        with self.session.current():
            self.enqueue(self.session.stream)
            self.session.synchronize()

    def expect(self, qkv: Any, result: NDArray[Any]) -> None:
        """`result` is what attention makes of `qkv`."""
        host = self.host
        wanted = attention(Tensors(qkv, host.qkv_bias, host.rel_pos_h, host.rel_pos_w, CASE.window)).out
        error = np.linalg.norm(result.reshape(wanted.shape) - wanted) / np.linalg.norm(wanted)
        assert error < 2e-3, f"off by {error:.3g}"  # one rounding of the result is 3e-4

    @property
    def other_qkv(self) -> NDArray[Any]:
        """Other values that the format holds exactly."""
        return -0.5 * np.asarray(self.host.qkv)[:, ::-1]


@pytest.fixture
def layer(kernels: Kernels, session: DeviceSession) -> Layer:
    return Layer(kernels, session)


def test_a_captured_kernel_runs_when_it_is_replayed(layer: Layer, session: DeviceSession) -> None:
    with session.current():
        graph = capture(session, layer.enqueue)
        session.synchronize()
        assert np.isnan(layer.out.numpy()).all(), "it ran while it was captured"
        for qkv in (layer.host.qkv, layer.other_qkv, layer.host.qkv):
            layer.upload(qkv, into=layer.qkv)
            graph.launch(session.stream)
            session.synchronize()
            layer.expect(qkv, layer.out.numpy())
        graph.close()


def test_torch_takes_and_gives_without_a_copy(layer: Layer, session: DeviceSession) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    qkv = torch.from_numpy(layer.other_qkv.astype(np.float16)).cuda()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        # Busy work first: the session's stream must wait for the tensor's.
        big = torch.randn(4096, 4096, device="cuda")
        for _ in range(10):
            big = big @ big / 4096
        layer.qkv = view_device_array(qkv + 0 * big[0, 0].half(), session, np.float16)  # type: ignore[assignment]
    layer.run()
    taken = torch.from_dlpack(layer.out)
    by_interface = torch.as_tensor(layer.out, device="cuda")
    assert taken.data_ptr() == by_interface.data_ptr() == layer.out.ptr
    layer.expect(layer.other_qkv, taken.float().cpu().numpy())
    # The tensor keeps the memory that samrt gave up.
    layer.out.close()
    layer.expect(layer.other_qkv, taken.float().cpu().numpy())


def test_cupy_takes_and_gives_without_a_copy(layer: Layer, session: DeviceSession) -> None:
    cupy = pytest.importorskip("cupy")
    layer.qkv = view_device_array(  # type: ignore[assignment]
        cupy.asarray(layer.other_qkv.astype(np.float16)) + np.float16(0), session, np.float16
    )
    layer.run()
    for taken in (cupy.asarray(layer.out), cupy.from_dlpack(layer.out)):
        assert taken.data.ptr == layer.out.ptr
        layer.expect(layer.other_qkv, cupy.asnumpy(taken).astype(np.float32))


def test_pycuda_s_arrays_are_taken_without_a_copy(layer: Layer, session: DeviceSession) -> None:
    pytest.importorskip("pycuda")
    importlib.import_module("pycuda.autoprimaryctx")
    gpuarray = importlib.import_module("pycuda.gpuarray")
    # A kernel on the default stream, which the session's must wait for.
    qkv = gpuarray.to_gpu(np.asarray(layer.other_qkv, np.float16)) + np.float16(0)
    layer.qkv = view_device_array(qkv, session, np.float16)  # type: ignore[assignment]
    assert layer.qkv.ptr == int(qkv.gpudata)
    layer.run()
    layer.expect(layer.other_qkv, from_bits(layer.out.numpy().view(np.uint16), "fp16"))
