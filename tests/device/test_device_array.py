"""Arrays in GPU memory, on a driver whose device memory is host memory."""

from __future__ import annotations

import pytest
from hostcuda.outside import expect_passed, names


@pytest.mark.parametrize("name", names("check_device_array.py"))
def test_on_host_memory(name: str) -> None:
    expect_passed("check_device_array.py", name)
