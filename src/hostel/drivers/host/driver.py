"""The host's processors and memory, as ``/proc`` and sysfs have them (``virhostcpu.c``, ``virhostmem.c``)."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hostel.drivers.base.host import ALL, LIBRARY_VERSION, NodeInfo
from hostel.drivers.fault import fault
from hostel.drivers.host.memory import HostMemory
from hostel.errors import ErrorCode, ErrorDomain, VirtError

_MOST_QEMU: Final = 16  # what libvirt says of machines that QEMU runs by itself
_KVM: Final = "/dev/kvm"
_CHECK_EXTENSION: Final = 0xAE03
_CAP_NR_VCPUS, _CAP_MAX_VCPUS = 9, 66
# Lines of the kernel's tables of memory, and libvirt's names for them; a cell has only the first two.
_MEMORY: Final = {"MemTotal": "total", "MemFree": "free", "Buffers": "buffers", "Cached": "cached"}
_MEMORY_OF_CELL: Final = ("total", "free")


class LinuxHostDriver(HostMemory):
    """Implements :class:`hostel.drivers.base.host.HostDriver`.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        super().__init__(root)
        self._proc = root / "proc"
        self._system = root / "sys/devices/system"

    def connect_get_lib_version(self) -> int:
        """The libvirt that is answered as."""
        return LIBRARY_VERSION

    def node_get_info(self) -> NodeInfo:
        """Processors and memory."""
        present, online = self._present(), self._online()
        cells = [self._topology(cpus, online) for cpus in self._cells(present)]
        cpus, offline = sum(cell[0] for cell in cells), sum(cell[1] for cell in cells)
        nodes = len(cells)
        sockets, cores, threads = (max(cell[part] for cell in cells) for part in (2, 3, 4))
        if nodes * sockets * cores * threads != cpus + offline:
            # What the host says does not fit these numbers: the capabilities have all of it.
            nodes, sockets, cores, threads = 1, 1, cpus + offline, 1
        return NodeInfo(
            platform.machine(), self._memory("total"), cpus, self._frequency(), nodes, sockets, cores, threads
        )

    def node_get_cpu_map(self) -> list[bool]:
        """Of each CPU that there may be, whether it is online."""
        online = self._online()
        return [cpu in online for cpu in range(max(self._present(), default=-1) + 1)]

    def node_get_cpu_stats(self, cpu: int = ALL) -> dict[str, int]:
        """What a CPU's time went to."""
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        wanted = "cpu" if cpu == ALL else f"cpu{cpu}"
        for line in self._read(self._proc / "stat").splitlines():
            name, *words = line.split()
            if name == wanted:
                user, nice, system, idle, wait, irq, soft = map(int, [*words, *["0"] * 7][:7])
                return {
                    "kernel": (system + irq + soft) * tick,
                    "user": (user + nice) * tick,
                    "idle": idle * tick,
                    "iowait": wait * tick,
                }
        raise _wrong("Invalid cpuNum in virHostCPUGetStatsLinux", "virHostCPUGetStatsLinux", "cpuNum")

    def node_get_memory_stats(self, cell: int = ALL) -> dict[str, int]:
        """Memory of a NUMA cell."""
        path = self._proc / "meminfo" if cell == ALL else self._system / f"node/node{cell}/meminfo"
        if cell != ALL and not path.exists():
            last = len(list(self._cells(self._present()))) - 1
            what = f"cellNum in virHostMemGetStats must be less than or equal to {last}"
            raise _wrong(what, "virHostMemGetStats", "cellNum")
        found: dict[str, int] = {}
        for match in re.finditer(r"^(?:Node \d+ )?(\w+): +(\d+)", self._read(path), re.MULTILINE):
            name = _MEMORY.get(match[1])
            if name is not None and (cell == ALL or name in _MEMORY_OF_CELL):
                found[name] = int(match[2])
        return found

    def node_get_free_memory(self) -> int:
        """Free memory, in bytes."""
        return self._memory("free") * 1024

    def _memory(self, name: str) -> int:
        """KiB of all cells (``virHostMemGetInfo``); where a host gave memory back, ``meminfo`` has other numbers."""
        cells = sorted((self._system / "node").glob("node[0-9]*/meminfo"))
        found = [self.node_get_memory_stats(int(path.parent.name.removeprefix("node"))) for path in cells]
        return sum(cell.get(name, 0) for cell in found or [self.node_get_memory_stats()])

    def node_get_cells_free_memory(self, start: int, count: int) -> list[int]:
        """Free memory of NUMA cells."""
        last = len(list(self._cells(self._present()))) - 1
        if start < 0 or start > last:
            reason = f"start cell {start} out of range (0-{last})"
            raise _fault(ErrorCode.INTERNAL_ERROR, reason)
        return [self.node_get_memory_stats(cell)["free"] * 1024 for cell in range(start, min(start + count, last + 1))]

    def connect_get_max_vcpus(self, type: str | None = None) -> int:
        """How many CPUs a machine may have."""
        name = (type or "qemu").lower()
        if name == "qemu":
            return _MOST_QEMU
        if name == "kvm":
            return _most_kvm()
        raise _fault(ErrorCode.INVALID_ARG, f"unknown type '{type}'")

    def close(self) -> None:
        """Nothing is held."""

    def _cells(self, present: set[int]) -> Iterator[set[int]]:
        """The CPUs of each NUMA cell; all of them, where the host knows of no cells."""
        paths = sorted(self._system.glob("node/node[0-9]*"))
        for path in paths:
            yield {int(entry.name[3:]) for entry in path.glob("cpu[0-9]*")} & present
        if not paths:
            yield present

    def _topology(self, cpus: set[int], online: set[int]) -> tuple[int, int, int, int, int]:
        """Of a cell: CPUs online and offline, sockets, and the most cores of a socket and threads of a core."""
        cores: dict[int, set[int]] = {}
        threads = 0
        for cpu in sorted(cpus & online):
            folder = self._system / f"cpu/cpu{cpu}/topology"
            socket, core = self._number(folder / "physical_package_id"), self._number(folder / "core_id")
            cores.setdefault(max(socket, 0), set()).add(core)
            siblings = self._read(folder / "thread_siblings").replace(",", "").strip()
            threads = max(threads, int(siblings, 16).bit_count() if siblings else 1)
        most = max(map(len, cores.values()), default=0)
        return len(cpus & online), len(cpus - online), len(cores), most, threads

    def _present(self) -> set[int]:
        return _numbers(self._read(self._system / "cpu/present"))

    def _online(self) -> set[int]:
        return _numbers(self._read(self._system / "cpu/online"))

    def _frequency(self) -> int:
        match = re.search(r"^(?:cpu MHz|clock)\s*:\s*(\d+)", self._read(self._proc / "cpuinfo"), re.MULTILINE)
        return 0 if match is None else int(match[1])

    def _number(self, path: Path) -> int:
        text = self._read(path).strip()
        return int(text) if text.lstrip("-").isdecimal() else 0

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text(errors="replace")
        except OSError:
            return ""


def _numbers(text: str) -> set[int]:
    """Numbers as the kernel lists them: ``0-3,8``."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            found.update(range(int(first), int(last or first) + 1))
    return found


def _most_kvm() -> int:
    """How many CPUs KVM gives a machine.

    Raises:
        VirtError: ``SYSTEM_ERROR``: there is no KVM.
    """
    import fcntl

    try:
        descriptor = os.open(_KVM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise VirtError(
            ErrorCode.SYSTEM_ERROR, f"Unable to open {_KVM}: {error.strerror}", domain=ErrorDomain.NONE
        ) from error
    try:
        for extension in (_CAP_MAX_VCPUS, _CAP_NR_VCPUS):
            found = fcntl.ioctl(descriptor, _CHECK_EXTENSION, extension)
            if found > 0:
                return found
    finally:
        os.close(descriptor)
    return 4


def _wrong(text: str, function: str, argument: str) -> VirtError:
    """What libvirt says of an argument by itself, without the code's beginning."""
    said = (function, argument, None, 0, 0)
    return VirtError(ErrorCode.INVALID_ARG, text, domain=ErrorDomain.NONE, details=said)


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.NONE)
