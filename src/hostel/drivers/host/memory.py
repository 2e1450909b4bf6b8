"""Pages, merging and sleep of the host, in sysfs (``virhostmem.c``, ``virnuma.c``, ``virnodesuspend.c``)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from hostel.drivers.base.agent import SuspendTarget
from hostel.drivers.base.hostmemory import ANY_CELL
from hostel.drivers.fault import fault, system_fault
from hostel.errors import ErrorCode, ErrorDomain, VirtError

# In libvirt's order.
_MERGING: Final = (
    "pages_to_scan", "sleep_millisecs", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile",
    "full_scans", "merge_across_nodes",
)  # fmt: skip
_CHANGEABLE: Final = ("shm_pages_to_scan", "shm_sleep_millisecs", "shm_merge_across_nodes")
_PREFIX: Final = "shm_"
_U32: Final = 2**32 - 1
# The kernel's names of states, and libvirt's; nothing puts a host into the last one and wakes it.
_STATES: Final = {SuspendTarget.MEM: ("mem", "Suspend-to-RAM"), SuspendTarget.DISK: ("disk", "Suspend-to-Disk")}
_SHORTEST: Final = 60  # seconds
_DELAY: Final = 10  # seconds: who asked is answered before


class HostMemory:
    """Implements :class:`hostel.drivers.base.hostmemory.HostMemoryDriver`.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._sys = root / "sys"
        self._nodes = root / "sys/devices/system/node"
        self._meminfo = root / "proc/meminfo"

    def node_get_free_pages(self, pages: Sequence[int], start_cell: int, cell_count: int) -> list[int]:
        """Free pages."""
        counts = [self._free(cell, size) for cell in self._chosen(start_cell, cell_count) for size in pages]
        if not counts:
            raise fault(ErrorCode.INTERNAL_ERROR, "no suitable info found")
        return counts

    def node_alloc_pages(
        self,
        page_sizes: Sequence[int],
        page_counts: Sequence[int],
        start_cell: int,
        cell_count: int,
        *,
        exactly: bool = False,
    ) -> int:
        """Pages that are kept."""
        pools = 0
        for cell in self._chosen(start_cell, cell_count):
            for size, count in zip(page_sizes, page_counts, strict=False):
                self._keep(cell, size, count, exactly=exactly)
                pools += 1
        return pools

    def node_get_memory_parameters(self) -> dict[str, int]:
        """How the kernel merges memory."""
        found: dict[str, int] = {}
        for name in _MERGING:
            path = self._sys / "kernel/mm/ksm" / name
            if path.exists():
                found[_PREFIX + name] = _number(path)
        return found

    def node_set_memory_parameters(self, params: Mapping[str, int]) -> None:
        """Change that."""
        for name, value in params.items():
            if name not in _CHANGEABLE:
                raise fault(ErrorCode.INVALID_ARG, f"parameter '{name}' not supported")
            if not isinstance(value, int) or not 0 <= value <= _U32:
                raise fault(ErrorCode.INVALID_ARG, f"invalid value '{value}' for parameter '{name}'")
            if not self._merging(name).exists():
                raise fault(ErrorCode.OPERATION_INVALID, f"Parameter '{name}' is not supported by this kernel")
        for name, value in params.items():
            _write(self._merging(name), str(value), f"failed to set {name}")

    def _merging(self, name: str) -> Path:
        return self._sys / "kernel/mm/ksm" / name.removeprefix(_PREFIX)

    def node_suspend_for_duration(self, target: int, duration: int) -> None:
        """Sleep."""
        if target not in (*_STATES, SuspendTarget.HYBRID):
            raise fault(ErrorCode.INVALID_ARG, "Invalid suspend target")
        rtcwake = shutil.which("rtcwake")
        state, name = _STATES.get(target, ("", "Hybrid-Suspend"))  # type: ignore[call-overload]
        try:
            states = (self._sys / "power/state").read_text().split()
        except OSError:
            states = []
        if rtcwake is None or state not in states or not os.access(self._sys / "power/state", os.W_OK):
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, name)
        if duration < _SHORTEST:
            raise fault(ErrorCode.INVALID_ARG, "Suspend duration is too short")
        # It outlives us: nobody waits for a host that sleeps.
        command = ["sh", "-c", f'sleep {_DELAY}; exec "$0" "$@"', rtcwake, "-m", state, "-s", str(duration)]
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/",
        )  # fmt: skip

    def _chosen(self, start: int, count: int) -> range:
        last = max((int(path.name[4:]) for path in self._nodes.glob("node[0-9]*")), default=0)
        if start > last or start < ANY_CELL:
            raise fault(ErrorCode.INTERNAL_ERROR, f"start cell {start} out of range (0-{last})")
        return range(start, min(last, start + count - 1) + 1)

    def _free(self, cell: int, size: int) -> int:
        base = os.sysconf("SC_PAGE_SIZE") // 1024
        if size != base:
            return _number(self._pool(cell, size) / "free_hugepages")
        path = self._meminfo if cell == ANY_CELL else self._nodes / f"node{cell}/meminfo"
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            raise system_fault(error, f"cannot read '{path}'") from error
        return next((int(line.split()[-2]) // base for line in lines if "MemFree:" in line), 0)

    def _pool(self, cell: int, size: int) -> Path:
        place = self._sys / "kernel/mm" if cell == ANY_CELL else self._nodes / f"node{cell}"
        pool = place / f"hugepages/hugepages-{size}kB"
        if not pool.exists():
            where = "" if cell == ANY_CELL else f" on node {cell}"
            raise fault(ErrorCode.OPERATION_FAILED, f"page size {size} is not available{where}")
        return pool

    def _keep(self, cell: int, size: int, count: int, *, exactly: bool) -> None:
        if size == os.sysconf("SC_PAGE_SIZE") // 1024:
            raise fault(ErrorCode.OPERATION_UNSUPPORTED, "system pages pool can't be modified")
        path = self._pool(cell, size) / "nr_hugepages"
        now = _number(path)
        wanted = count if exactly else now + count
        if wanted == now:
            return
        _write(path, str(wanted), f"Unable to write to: {path}")
        # The kernel gives as many as it can, and says nothing.
        now = _number(path)
        if now != wanted:
            what = f"Unable to allocate {wanted} pages. Allocated only {now}"
            raise fault(ErrorCode.OPERATION_FAILED, what)


def _number(path: Path) -> int:
    try:
        text = path.read_text()
    except OSError as error:
        raise system_fault(error, f"Failed to open file '{path}'") from error
    try:
        return int(text)
    except ValueError:
        raise _invalid(text.strip(), path) from None


def _invalid(text: str, path: Path) -> VirtError:
    return fault(ErrorCode.OPERATION_FAILED, f"invalid number '{text}' in '{path}'", ErrorDomain.NONE)


def _write(path: Path, text: str, doing: str) -> None:
    try:
        with path.open("r+") as stream:
            stream.write(text)
    except OSError as error:
        raise system_fault(error, doing) from error
