"""Arrays in GPU memory on the driver of `libcuda.c`; see `outside.py`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver
from cuda.core.utils import StridedMemoryView
from hostcuda.inside import CaiArray, DlpackArray, PycudaArray, alive, counts, other_context

from samrt.device.array import DeviceArray, is_device_array, view_device_array
from samrt.device.session import DeviceOptions, DeviceSession
from samrt.errors import BackendError, InputError

VALUES = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


@pytest.fixture
def session() -> Iterator[DeviceSession]:
    with DeviceSession() as opened:
        yield opened


def _array(session: DeviceSession, values: Any = VALUES) -> DeviceArray:
    array = DeviceArray(session.allocate(values.nbytes), values.shape, values.dtype)
    with session.current():
        driver.cuMemcpyHtoD(array.ptr, values.ctypes.data, values.nbytes)
    return array


def test_the_host_gets_a_copy(session: DeviceSession) -> None:
    array = _array(session)
    np.testing.assert_array_equal(array.numpy(), VALUES)
    np.testing.assert_array_equal(np.asarray(array), VALUES)
    assert np.asarray(array, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        array.__array__(copy=False)


def test_rows_share_the_memory_and_keep_it(session: DeviceSession) -> None:
    before = counts()["device"]
    array = _array(session)
    rows = array[1:3]
    assert rows.ptr == array.ptr + 24
    del array
    np.testing.assert_array_equal(rows.numpy(), VALUES[1:3])
    assert (rows[5:].shape, len(rows[:-1])) == ((0, 3, 2), 1)
    with pytest.raises(InputError, match="steps of 1"):
        rows[::2]
    del rows
    gc.collect()
    assert counts()["device"] == before


def test_a_row_is_an_array_of_one_axis_less(session: DeviceSession) -> None:
    array = _array(session)
    for index in (0, 3, -1, np.int64(2)):
        assert isinstance(array[index], DeviceArray)
        np.testing.assert_array_equal(array[index].numpy(), VALUES[index])
    for row, values in zip(array, VALUES, strict=True):
        np.testing.assert_array_equal(row.numpy(), values)
    np.testing.assert_array_equal(array[1][2][1].numpy(), VALUES[1, 2, 1])
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"no row {index} of 4"):
            array[index]


@pytest.mark.parametrize("part", [..., None, (0, 1), 1.5, "x", [0]])
def test_other_parts_are_refused(session: DeviceSession, part: Any) -> None:
    with pytest.raises(InputError, match="has rows and slices of them"):
        _array(session)[part]


def test_an_array_without_axes_has_no_rows(session: DeviceSession) -> None:
    array = _array(session, np.full((), 3, np.float32))
    assert array.numpy() == 3
    with pytest.raises(TypeError, match="no length"):
        len(array)
    for use in (list, lambda a: a[0], lambda a: a[:]):
        with pytest.raises(InputError, match="no rows"):
            use(array)


def test_too_small_memory_is_refused(session: DeviceSession) -> None:
    with pytest.raises(BackendError, match="do not hold"):
        DeviceArray(session.allocate(8), (3,), "float32")


def test_it_is_freed_once_and_after_its_last_export(session: DeviceSession) -> None:
    before = alive()
    array = _array(session)
    capsule = array.__dlpack__()
    array.close()
    array.close()
    with pytest.raises(BackendError, match="closed"):
        array.numpy()
    assert alive()["device"] == before["device"] + 1
    del capsule
    gc.collect()
    assert alive() == before


def test_it_outlives_its_session() -> None:
    with DeviceSession() as session:
        array = _array(session)
    np.testing.assert_array_equal(array.numpy(), VALUES)


def test_others_view_it_without_a_copy(session: DeviceSession) -> None:
    array = _array(session)
    through_dlpack = StridedMemoryView.from_dlpack(array, stream_ptr=-1)
    with session.current():
        through_cai = StridedMemoryView.from_cuda_array_interface(array, stream_ptr=session.stream)
    for view in (through_dlpack, through_cai):
        assert (view.ptr, view.shape, view.dtype, view.device_id) == (array.ptr, (4, 3, 2), np.float32, 0)
    assert array.__dlpack_device__() == (2, 0)
    assert array.__dlpack__(dl_device=(2, 0), copy=None, max_version=(1, 0)) is not None
    with pytest.raises(BufferError):
        array.__dlpack__(dl_device=(1, 0))
    assert array.__cuda_array_interface__["version"] == 3


def test_what_is_on_the_gpu_is_known_as_such(session: DeviceSession) -> None:
    assert is_device_array(_array(session))
    assert is_device_array(CaiArray(session, VALUES))
    assert is_device_array(DlpackArray(session, VALUES))
    assert not is_device_array(VALUES)
    assert not is_device_array([1.0])
    assert not is_device_array(memoryview(b"1"))

    class OnTheHost:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    assert not is_device_array(OnTheHost())

    class Nowhere:
        def __dlpack_device__(self) -> tuple[int, int]:
            raise ValueError("it has no storage")

    assert not is_device_array(Nowhere())


@pytest.mark.parametrize("kind", [CaiArray, DlpackArray, PycudaArray])
def test_a_foreign_array_is_viewed_after_its_producer(session: DeviceSession, kind: type[Any]) -> None:
    foreign = kind(session, VALUES)
    view = view_device_array(foreign, session, "float32")
    assert (view.ptr, view.shape) == (foreign.memory.ptr, (4, 3, 2))
    staging = session.allocate_pinned(VALUES.nbytes)
    with session.current():
        session.copy(staging.ptr, view.ptr, VALUES.nbytes)
        session.synchronize()
    # Without an order between the streams this would still be what memory is filled with.
    np.testing.assert_array_equal(staging.host_view(VALUES.shape, VALUES.dtype), VALUES)


@pytest.mark.parametrize("kind", [CaiArray, DlpackArray])
def test_a_view_keeps_its_array(session: DeviceSession, kind: type[Any]) -> None:
    before = counts()["device"]
    foreign = kind(session, VALUES)
    view = view_device_array(foreign, session, "float32")
    del foreign
    gc.collect()
    assert counts()["device"] == before + 1
    del view
    gc.collect()
    assert counts()["device"] == before


@pytest.mark.parametrize("kind", [CaiArray, DlpackArray])
def test_the_wrong_dtype_is_refused(session: DeviceSession, kind: type[Any]) -> None:
    with pytest.raises(InputError, match="points must be float32, not float64"):
        view_device_array(kind(session, VALUES.astype(np.float64)), session, "float32", "points")


def test_arrays_that_are_not_contiguous_are_refused(session: DeviceSession) -> None:
    foreign = CaiArray(session, VALUES)
    foreign.strides = (4, 8, 24)
    with pytest.raises(InputError, match="not C-contiguous"):
        view_device_array(foreign, session, "float32")
    # PyCUDA gives strides of contiguous arrays too.
    foreign.strides = VALUES.strides
    assert view_device_array(foreign, session, "float32").shape == VALUES.shape


@pytest.mark.parametrize("kind", [CaiArray, DlpackArray, None])
def test_arrays_of_another_gpu_are_refused(session: DeviceSession, kind: type[Any] | None) -> None:
    with DeviceSession(DeviceOptions(device=1)) as other:
        foreign = kind(other, VALUES) if kind else _array(other)
        with pytest.raises(InputError, match="is on GPU 1, the engine runs on GPU 0"):
            view_device_array(foreign, session, "float32")


def test_arrays_of_another_context_are_refused(session: DeviceSession) -> None:
    foreign = CaiArray(session, VALUES)
    driver.cuCtxPushCurrent(driver.CUcontext(other_context()))
    pointer = driver.cuMemAlloc(VALUES.nbytes)[1]
    driver.cuCtxPopCurrent()
    ours, foreign.memory = foreign.memory, type("Elsewhere", (), {"ptr": int(pointer)})()
    with pytest.raises(InputError, match=r"pycuda\.autoprimaryctx"):
        view_device_array(foreign, session, "float32")
    foreign.memory = ours
    with session.current():
        driver.cuMemFree(pointer)


def test_what_its_library_refuses_to_hand_out_is_refused(session: DeviceSession) -> None:
    class Refusing:
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("it requires a gradient")

        @property
        def __cuda_array_interface__(self) -> Any:
            raise RuntimeError("it requires a gradient")

    assert is_device_array(Refusing())
    with pytest.raises(InputError, match="it requires a gradient"):
        view_device_array(Refusing(), session, "float32")
