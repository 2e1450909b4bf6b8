"""The host's processor, asked by its own instruction: /proc/cpuinfo leaves out what the kernel does not use itself."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import platform
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from hostel.drivers.qemu.cpu import feature
from hostel.drivers.qemu.cpu.known import vendor_of

# push rbx; mov eax, edi; mov ecx, esi; mov r8, rdx; cpuid; mov [r8 + 0, 4, 8, 12], eax, ebx, ecx, edx; pop rbx; ret
_CODE: Final = bytes.fromhex("5389f889f14989d00fa241890041895804418948084189500c5bc3")
_EXTENDED: Final = 0x80000000
# The kernel's names that differ by more than their punctuation.
_KERNEL: Final = {"pclmulqdq": "pclmuldq", "tsc_deadline_timer": "tsc-deadline", "nonstop_tsc": "invtsc"}
_PUNCTUATION: Final = str.maketrans("", "", "_-.")

_Out: Final = ctypes.c_uint32 * 4
_FUNCTION: Final = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, _Out)

Registers = tuple[int, int, int, int]
Cpuid = Callable[[int, int], Registers]


class HostCpu(NamedTuple):
    """The processor: whose it is, family and model number, and what it has."""

    vendor: str | None
    signature: tuple[int, int]
    features: frozenset[str]


def host_cpu(cpuinfo: str = "") -> HostCpu | None:
    """The processor that this runs on; where the instruction may not be executed, what the kernel says in ``cpuinfo``.

    None where it is none of x86.
    """
    if platform.machine() != "x86_64":
        return None
    with _instruction() as cpuid:
        return _told(cpuid) if cpuid is not None else kernel_cpu(cpuinfo)


def registers(leaf: int) -> Registers | None:
    """What the instruction answers for a leaf; None where there is none, or it may not be executed."""
    if platform.machine() != "x86_64":
        return None
    with _instruction() as cpuid:
        return cpuid(leaf, 0) if cpuid is not None and leaf <= cpuid(leaf & _EXTENDED, 0)[0] else None


def _told(cpuid: Cpuid) -> HostCpu:
    most, *words = cpuid(0, 0)
    ebx, ecx, edx = words
    last = {0: most, _EXTENDED: cpuid(_EXTENDED, 0)[0]}
    has = set()
    for name, place in feature.PLACES.items():
        is_told = place.leaf <= last[place.leaf & _EXTENDED] and _is_subleaf(cpuid, place.leaf, place.subleaf)
        if is_told and _bit(cpuid, place):
            has.add(name)
    signature = cpuid(1, 0)[0]
    family, model = signature >> 8 & 0xF, signature >> 4 & 0xF
    if family in (6, 15):
        model |= (signature >> 16 & 0xF) << 4
    if family == 15:
        family += signature >> 20 & 0xFF
    vendor = struct.pack("<III", ebx, edx, ecx).decode("ascii", "replace")
    return HostCpu(vendor_of(vendor), (family, model), frozenset(has))


def _is_subleaf(cpuid: Cpuid, leaf: int, subleaf: int) -> bool:
    """Whether there is one: of those that have no features without another feature, only then."""
    if leaf == 7:
        return subleaf <= cpuid(7, 0)[0]
    if leaf in (0xF, 0x12, 0x14):
        return _bit(cpuid, feature.PLACES[{0xF: "cmt", 0x12: "sgx", 0x14: "intel-pt"}[leaf]])
    return True


def _bit(cpuid: Cpuid, place: feature.Place) -> bool:
    return bool(cpuid(place.leaf, place.subleaf)[place.register] >> place.bit & 1)


def kernel_cpu(cpuinfo: str) -> HostCpu | None:
    """A processor as the kernel describes it: without what it has no use for.

    Args:
        cpuinfo: the text of ``/proc/cpuinfo``.
    """
    said = dict(_lines(cpuinfo))
    if "flags" not in said:
        return None
    plain = {name.translate(_PUNCTUATION): name for name in feature.NAMES}
    flags = (_KERNEL.get(flag, flag) for flag in said["flags"].split())
    has = frozenset(plain[flag] for flag in (flag.translate(_PUNCTUATION) for flag in flags) if flag in plain)
    signature = int(said.get("cpu family", 0)), int(said.get("model", 0))
    return HostCpu(vendor_of(said.get("vendor_id", "")), signature, has)


def _lines(cpuinfo: str) -> Iterator[tuple[str, str]]:
    """What is said of the first processor."""
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


@contextlib.contextmanager
def _instruction() -> Iterator[Cpuid | None]:
    """A function that executes CPUID; None where the host lets nobody execute what was just written."""
    try:
        memory = mmap.mmap(
            -1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        )
    except OSError:
        yield None
        return
    with memory:
        memory.write(_CODE)
        start = ctypes.c_char.from_buffer(memory)
        call = _FUNCTION(ctypes.addressof(start))

        def cpuid(leaf: int, subleaf: int) -> Registers:
            out = _Out()
            call(leaf, subleaf, out)
            return out[0], out[1], out[2], out[3]

        try:
            yield cpuid
        finally:
            del start  # else the memory cannot be given back
