"""Small PTX kernels with one fault each. A sanitizer that misses these would miss faults in samrt's kernels too."""

from __future__ import annotations

from dataclasses import dataclass

from driver import Driver

THREADS = 64
_BUFFER_BYTES = 4 * THREADS

_KERNEL = """
.version 7.0
.target sm_80
.address_size 64
.visible .entry planted(.param .u64 buffer) {{
  .reg .u64 %address, %offset;
  .reg .u32 %thread, %place, %value;
  .shared .align 4 .b8 places[256];
  ld.param.u64 %address, [buffer];
  cvta.to.global.u64 %address, %address;
  mov.u32 %thread, %tid.x;
  mul.wide.u32 %offset, %thread, 4;
  add.u64 %address, %address, %offset;
{body}
  st.global.u32 [%address], %value;
  ret;
}}
"""
# 64 threads write 4 bytes each; the last thread writes past the end of the allocation.
_PAST_THE_END = "  mov.u32 %value, %thread;"
# Every thread adds to memory that was never written.
_NEVER_WRITTEN = "  ld.global.u32 %value, [%address];\n  add.u32 %value, %value, 1;"
# The first and the second warp exchange values through shared memory without a barrier.
_NO_BARRIER = """
  mov.u32 %place, places;
  mad.lo.u32 %place, %thread, 4, %place;
  st.shared.u32 [%place], %thread;
  xor.b32 %value, %thread, 63;
  mov.u32 %place, places;
  mad.lo.u32 %place, %value, 4, %place;
  ld.shared.u32 %value, [%place];
"""


@dataclass(frozen=True)
class Fault:
    """A kernel in PTX, the bytes of its buffer, and what compute-sanitizer writes where it sees the fault."""

    ptx: str
    buffer_bytes: int
    report: str


# By the tool of compute-sanitizer that must find it.
FAULTS = {
    "memcheck": Fault(_KERNEL.format(body=_PAST_THE_END), _BUFFER_BYTES - 4, "Invalid __global__ write"),
    "racecheck": Fault(_KERNEL.format(body=_NO_BARRIER), _BUFFER_BYTES, "Race reported"),
    "initcheck": Fault(_KERNEL.format(body=_NEVER_WRITTEN), _BUFFER_BYTES, "Uninitialized __global__ memory read"),
}


def run(tool: str) -> None:
    """Run the kernel with the fault that `tool` looks for. An error that CUDA itself reports is ignored."""
    fault, driver = FAULTS[tool], Driver()
    with driver.memory(fault.buffer_bytes) as buffer:
        driver.run_ptx(fault.ptx, "planted", THREADS, buffer)
