"""The CUDA kernels on a GPU: the checks that run on the host everywhere, and the torch operator with its streams."""

from __future__ import annotations

from typing import Any

import kernel_checks
import pytest
from driver import Driver

from samrt.kernels.library import Kernels


def test_the_library_passes_its_own_test(kernels: Kernels) -> None:
    kernels.self_test()


@pytest.mark.parametrize("module", kernel_checks.MODULES)
def test_kernels_pass_the_checks_of_the_host(kernels: Kernels, module: str) -> None:
    pytest.importorskip(module)
    where = kernel_checks.device(Driver())
    for name in kernel_checks.names(module):
        kernel_checks.run(module, name, kernels, where)


@pytest.fixture(scope="module")
def torch(kernels: Kernels) -> Any:
    found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return found


@pytest.fixture
def layer(torch: Any) -> Any:
    from torch_attention import Case, make_inputs

    return make_inputs(Case("windows", 20, 24, window=14, batch=2), "fp16", 64, True, "cuda")


def test_the_operator_passes_its_checks(torch: Any) -> None:
    from check_torch_operator import CHECKS

    for check in CHECKS.values():
        check("cuda")


def test_a_cuda_graph_computes_from_what_is_in_the_tensors(torch: Any, layer: Any) -> None:
    from torch_attention import by_kernel

    stream = torch.cuda.Stream()
    torch.cuda.synchronize()  # the inputs were made on another stream
    with torch.cuda.stream(stream):
        first = by_kernel(layer)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            out = by_kernel(layer)
        graph.replay()
        assert torch.equal(out, first)
        layer.qkv.mul_(-0.5)
        graph.replay()
        assert torch.equal(out, by_kernel(layer))
        assert not torch.equal(out, first)


def test_it_waits_for_what_is_on_its_stream(torch: Any, layer: Any) -> None:
    from torch_attention import by_kernel

    expected = by_kernel(layer)
    wanted = layer.qkv.clone()
    layer.qkv.zero_()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        # Busy work first: a kernel on another stream would read the zeros.
        big = torch.randn(4096, 4096, device="cuda")
        for _ in range(20):
            big = big @ big / 4096
        layer.qkv.copy_(wanted)
        out = by_kernel(layer)
        again = out.clone()
    torch.cuda.synchronize()
    assert torch.equal(again, expected)
