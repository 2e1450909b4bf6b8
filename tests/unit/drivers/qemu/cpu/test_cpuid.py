"""What the processor and the kernel say of the processor."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from hostel.drivers.qemu.cpu import feature
from hostel.drivers.qemu.cpu.cpuid import host_cpu, kernel_cpu

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
flags\t\t: fpu sse4_1 pclmulqdq avx512_vnni tsc_deadline_timer nonstop_tsc rep_good cr8_legacy

processor\t: 1
vendor_id\t: Other
"""


def test_places_are_the_manuals() -> None:
    assert feature.PLACES["sse4.2"] == (1, 0, 2, 20)
    assert feature.PLACES["avx512vl"] == (7, 0, 1, 31)
    assert feature.PLACES["arch-capabilities"] == (7, 0, 3, 29)
    assert feature.PLACES["lm"] == (0x80000001, 0, 3, 29)
    assert feature.PLACES["perfctr_nb"] == (0x80000001, 0, 2, 24)
    assert feature.PLACES["svme-addr-chk"] == (0x8000000A, 0, 3, 28)
    assert feature.PLACES["amd-no-ssb"] == (0x80000008, 0, 1, 26)
    assert feature.PLACES["intel-pt-lip"] == (0x14, 0, 2, 31)
    assert len(set(feature.PLACES.values())) == len(feature.PLACES)


def test_kernels_names_are_told_apart_from_what_is_no_feature() -> None:
    found = kernel_cpu(CPUINFO)
    assert found is not None
    assert (found.vendor, found.signature) == ("Intel", (6, 85))
    assert found.features == {"fpu", "sse4.1", "pclmuldq", "avx512vnni", "tsc-deadline", "invtsc", "cr8legacy"}
    assert kernel_cpu("Features : fp asimd\n") is None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction is x86's")
def test_processor_says_all_that_the_kernel_says() -> None:
    text = Path("/proc/cpuinfo").read_text()
    told, known = host_cpu(text), kernel_cpu(text)
    assert told is not None and known is not None
    assert (told.vendor, told.signature) == (known.vendor, known.signature)
    # The kernel makes names up for what it works around, from bits of other vendors.
    assert known.features - told.features <= {"stibp", "ibrs", "ibpb", "ssbd", "amd-ssbd", "virt-ssbd"}
