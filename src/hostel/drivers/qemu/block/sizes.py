"""The driver's calls about a disk's size, its counters, its limits and its errors."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Mapping
from typing import Any, Final

from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import BlockInfo, BlockResizeFlag, DiskError
from hostel.drivers.base.domain import Affect
from hostel.drivers.fault import fault, system_fault
from hostel.drivers.qemu.block.chain import Image, find_disk, images
from hostel.drivers.qemu.calls import Calls, no_domain
from hostel.drivers.qemu.command.context import alias_of
from hostel.drivers.qemu.command.disk import format_node, storage_node, throttle, top_node
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.plug.graph import device_of
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Status
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk, IoTune
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.disk import is_empty
from hostel.units import KiB

_SECTOR: Final = 512
# libvirt's names of the counters, and QEMU's.
_COUNTERS: Final = {
    "rd_bytes": "rd_bytes", "rd_operations": "rd_operations", "rd_total_times": "rd_total_time_ns",
    "wr_bytes": "wr_bytes", "wr_operations": "wr_operations", "wr_total_times": "wr_total_time_ns",
    "flush_operations": "flush_operations", "flush_total_times": "flush_total_time_ns",
}  # fmt: skip
LIMITS: Final = tuple(field.name for field in IoTune.FIELDS)
_NUMBERS: Final = tuple(name for name in LIMITS if name != "group_name")
_LOOK_SECONDS: Final = 5.0  # that an image may take where QEMU does not answer
_LOOKS: Final = threading.BoundedSemaphore(8)  # that go on at once; one at a server that is gone may never end
_MOST: Final = 10**15  # QEMU's own bound for a limit
_MOST_KIB: Final = (2**64 - 1) // KiB


class SizeCalls(Calls):
    """Sizes and limits; see :class:`hostel.drivers.base.block.BlockDriver`."""

    def domain_block_resize(
        self, domain: DomainRef, disk: str, size: int, flags: BlockResizeFlag = BlockResizeFlag.NONE
    ) -> None:
        """Change the size that the guest sees."""
        if not flags & BlockResizeFlag.BYTES and size > _MOST_KIB:
            raise fault(ErrorCode.OVERFLOW, f"size must be less than {_MOST_KIB}", ErrorDomain.QEMU)
        with self._running(domain) as machine:
            found = find_disk(machine.domain, disk)
            top = next(images(found), None)
            if top is None or found.readonly:
                what = f"can't resize empty or readonly disk '{found.target.dev}'"
                raise fault(ErrorCode.OPERATION_UNSUPPORTED, what, ErrorDomain.QEMU)
            wanted = size if flags & BlockResizeFlag.BYTES else size * KiB
            if top.format in ("qcow2", "qed"):  # whole sectors, as libvirt rounds
                wanted = -(-wanted // _SECTOR) * _SECTOR
            # The device's own node, even where it is a filter: only then is the guest told.
            machine.ask("block_resize", **{"node-name": top_node(found), "size": wanted})

    def domain_block_stats_flags(self, domain: DomainRef, disk: str) -> Mapping[str, int]:
        """Counters of one disk, or of all."""
        with self._running(domain, moving=True) as machine:
            disks = [_named(machine.domain, disk, "invalid path: {}")] if disk else machine.domain.devices.disks
            found = counters(machine)
        total = dict.fromkeys(_COUNTERS, 0)
        for item in disks:
            for name, value in found.get(alias_of(item), {}).items():
                total[name] = total.get(name, 0) + value
        return total

    def domain_get_block_info(self, domain: DomainRef, disk: str) -> BlockInfo:
        """Sizes, from QEMU while it runs, and from the image where QEMU does not answer."""

        def look(machine: Running | None) -> BlockInfo:
            if machine is not None:
                return live_info(machine, _disk(machine.domain, disk))
            self._settle_snapshots(domain.name)
            return self._stored_info(domain, disk)

        def recorded(known: Status | None) -> BlockInfo:
            if known is None:
                return self._stored_info(domain, disk)
            top = next(images(_disk(known.domain, disk)))
            if not (top.source.file or top.source.dev):
                raise _unanswered(f"disk '{disk}' is no file or device of this host's")
            return _soon(top)

        return self._look(domain, look, recorded)

    def _stored_info(self, domain: DomainRef, disk: str) -> BlockInfo:
        """Sizes of a disk of a definition."""
        definition = self._machines.definition(domain.name)
        if definition is None:
            raise no_domain(f"name '{domain.name}'")
        copy = _disk(definition, disk).copy()
        self._launcher.prepare(copy)
        return stored_info(next(images(copy)))

    def domain_get_disk_errors(self, domain: DomainRef) -> list[DiskError]:
        """Disks that an error has stopped."""
        with self._running(domain, moving=True) as machine:
            states = {device_of(item): item.get("io-status") for item in machine.ask("query-block")}
            codes = {"failed": 1, "nospace": 2}
            return [
                DiskError(disk.target.dev, codes[state])
                for disk in machine.domain.devices.disks
                if (state := states.get(disk.alias or "")) in codes
            ]

    def domain_get_block_io_tune(
        self, domain: DomainRef, disk: str, affect: Affect = Affect.CURRENT
    ) -> Mapping[str, int | str]:
        """The limits of a disk."""
        if affect == Affect.LIVE | Affect.CONFIG:
            what = "Cannot query live and config together"
            raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
        with self._both(domain, affect, moving=True) as both:
            found = find_disk(both.current, disk)
            if both.running is not None and not is_empty(found):
                return _live_limits(both.running, found)
            tune = found.iotune or IoTune()
            return {name: getattr(tune, name) or (0 if name != "group_name" else "") for name in LIMITS}

    def domain_set_block_io_tune(
        self, domain: DomainRef, disk: str, limits: Mapping[str, int | str], affect: Affect = Affect.CURRENT
    ) -> None:
        """Set limits."""
        with self._both(domain, affect) as both:
            if both.running is not None:
                self._limit_running(both.running, find_disk(both.running.domain, disk), limits)
            if both.definition is not None:
                found = find_disk(both.definition, disk)
                found.iotune = merged(both.definition, found, limits)
                _spread(both.definition, found)
                self._define(both.definition)

    def _limit_running(self, machine: Running, disk: Disk, limits: Mapping[str, int | str]) -> None:
        old = disk.iotune
        group = (old.group_name if old is not None else None) or limits.get("group_name")
        disk.iotune = merged(machine.domain, disk, limits)
        try:
            words = throttle(disk)
            if group is None:
                words["group"] = alias_of(disk)
            if not is_empty(disk):  # else what is put in has the limits from then on
                machine.ask("block_set_io_throttle", **words)
        except BaseException:
            disk.iotune = old
            raise
        _spread(machine.domain, disk)
        machine.save()
        told = {f"blkdeviotune.{name}": value for name, value in limits.items()}
        machine.publish("tunable", **{"blkdeviotune.disk": disk.target.dev, **told})

    def domain_set_block_threshold(self, domain: DomainRef, device: str, threshold: int) -> None:
        """Have an event told when an image is written past a mark."""
        with self._running(domain) as machine:
            target = device.partition("[")[0]
            disk = _named(machine.domain, target, "failed to find disk '{}'", device)
            image = next(images(disk), None)
            if "[" in device:
                image = next((item for item in images(disk) if device == f"{target}[{item.number}]"), None)
                if image is None:
                    raise fault(ErrorCode.INVALID_ARG, f"failed to find disk '{device}'", ErrorDomain.QEMU)
            if image is None:
                raise fault(ErrorCode.INVALID_ARG, f"disk '{device}' has no medium", ErrorDomain.QEMU)
            name = storage_node(image.number)
            machine.ask("block-set-write-threshold", **{"node-name": name, "write-threshold": threshold})


def _named(domain: Domain, name: str, words: str, shown: str | None = None) -> Disk:
    """A disk, or libvirt's words for there being none, which differ from call to call."""
    try:
        return find_disk(domain, name)
    except VirtError:
        raise fault(ErrorCode.INVALID_ARG, words.format(shown or name), ErrorDomain.QEMU) from None


def _disk(domain: Domain, name: str) -> Disk:
    try:
        disk = find_disk(domain, name)
    except VirtError:
        what = f"invalid path {name} not assigned to domain"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU) from None
    if disk.source is None:
        what = f"disk '{name}' does not currently have a source assigned"
        raise fault(ErrorCode.INVALID_ARG, what, ErrorDomain.QEMU)
    return disk


def stored_info(image: Image) -> BlockInfo:
    """Sizes of an image that no QEMU has open: what its file says of itself.

    Raises:
        VirtError: there is none, or it cannot be read.
    """
    from hostel.drivers.storage.inspect import inspect

    try:
        facts = inspect(os.path.basename(image.path), image.path)
    except OSError as error:
        raise system_fault(error, f"cannot look at '{image.path}'", ErrorDomain.QEMU) from error
    if facts is None:
        raise failed(f"'{image.path}' is no file or device")
    return BlockInfo(facts.capacity if image.format != "raw" else facts.physical, facts.allocation, facts.physical)


def _soon(image: Image) -> BlockInfo:
    """What the file of an image says, where QEMU does not answer: it may wait for the same file system as we then.

    Raises:
        VirtError: as :func:`stored_info`; ``OPERATION_TIMEOUT``: it cannot be looked at now.
    """
    from concurrent.futures import Future

    found: Future[BlockInfo] = Future()

    def look() -> None:
        try:
            found.set_result(stored_info(image))
        except Exception as error:
            found.set_exception(error)
        finally:
            _LOOKS.release()

    if _LOOKS.acquire(timeout=_LOOK_SECONDS):
        try:
            threading.Thread(target=look, name=f"look at {image.path}", daemon=True).start()
        except RuntimeError:  # the host has no thread left for us
            _LOOKS.release()
            raise
        with contextlib.suppress(TimeoutError):
            return found.result(_LOOK_SECONDS)
    raise _unanswered(f"neither does the file system of '{image.path}'")


def _unanswered(what: str) -> VirtError:
    return fault(ErrorCode.OPERATION_TIMEOUT, f"QEMU does not answer, and {what}", ErrorDomain.QEMU)


def counters(machine: Running) -> dict[str, dict[str, int]]:
    """The counters of every device, by its alias."""
    return {
        device_of(item): {name: int(item["stats"].get(word, 0)) for name, word in _COUNTERS.items()}
        for item in machine.ask("query-blockstats")
    }


def live_info(machine: Running, disk: Disk) -> BlockInfo:
    """Sizes as QEMU and the host tell them (``qemuDomainGetBlockInfo``)."""
    top = next(images(disk))
    nodes = {node["node-name"]: node for node in machine.ask("query-named-block-nodes", flat=True)}
    node = nodes.get(format_node(top.number))
    if node is None:
        raise failed(f"QEMU has no image of disk '{disk.target.dev}'")
    capacity = int(node["image"]["virtual-size"])
    allocation = physical = int(node["image"].get("actual-size", 0))
    try:
        status = os.stat(top.path) if top.source.file or top.source.dev else None
    except OSError:
        status = None
    if status is not None:
        physical = status.st_size
        if stat.S_ISBLK(status.st_mode):
            physical = int(nodes[storage_node(top.number)]["image"]["virtual-size"])
            allocation = _highest(machine, top.number) or physical
    return BlockInfo(capacity, allocation, physical)


def _highest(machine: Running, number: int) -> int:
    """The highest byte that was written of an image; 0 where QEMU does not know."""
    for item in machine.ask("query-blockstats", **{"query-nodes": True}):
        if item.get("node-name") == storage_node(number):
            return int(item["stats"].get("wr_highest_offset", 0))
    return 0


def _live_limits(machine: Running, disk: Disk) -> dict[str, int | str]:
    """What QEMU limits the disk to."""
    found = next((item for item in machine.ask("query-block") if device_of(item) == disk.alias), None)
    inserted: Mapping[str, Any] = found.get("inserted", {}) if found is not None else {}
    words = {
        "total_bytes_sec": "bps", "read_bytes_sec": "bps_rd", "write_bytes_sec": "bps_wr",
        "total_iops_sec": "iops", "read_iops_sec": "iops_rd", "write_iops_sec": "iops_wr",
    }  # fmt: skip
    limits: dict[str, int | str] = {}
    for name in LIMITS:
        if name == "group_name":
            limits[name] = str(inserted.get("group", ""))
        elif name == "size_iops_sec":
            limits[name] = int(inserted.get("iops_size", 0))
        else:
            base = next(item for item in words if name.startswith(item))
            limits[name] = int(inserted.get(words[base] + name.removeprefix(base), 0))
    return limits


def _group(disk: Disk) -> str | None:
    return disk.iotune.group_name if disk.iotune is not None else None


def _spread(domain: Domain, disk: Disk) -> None:
    """Say of all disks of a group what was changed of one: they have their limits together."""
    for other in domain.devices.disks:
        if other is not disk and disk.iotune is not None and _group(other) == _group(disk) is not None:
            other.iotune = disk.iotune.copy()


def merged(domain: Domain, disk: Disk, limits: Mapping[str, int | str]) -> IoTune | None:
    """A disk's limits with some changed; a total takes the place of its parts, and they its place.

    Of a disk that comes into a group they are the group's, changed.

    Raises:
        VirtError: they contradict each other, a length has no burst, or a group would be without limits.
    """
    wanted = limits.get("group_name")
    group = [it.iotune for it in domain.devices.disks if it.iotune is not None and _group(it) == wanted]
    before = group[0] if wanted and wanted != _group(disk) and group else disk.iotune
    tune = before.copy() if before is not None else IoTune()
    for name, value in limits.items():
        if name in _NUMBERS and int(value) > _MOST:
            what = f"block I/O throttle limit value must be no more than {_MOST}; '{name}' is {value}"
            raise fault(ErrorCode.ARGUMENT_UNSUPPORTED, what, ErrorDomain.QEMU)
        setattr(tune, name, value or None)
    for what in ("bytes_sec", "iops_sec", "bytes_sec_max", "iops_sec_max"):
        parts = [f"{direction}_{what}" for direction in ("read", "write")]
        if any(limits.get(part) for part in parts) and limits.get(f"total_{what}"):
            word = "total and read/write of " + what
            raise fault(ErrorCode.INVALID_ARG, f"{word} cannot be set at the same time", ErrorDomain.QEMU)
        if any(limits.get(part) for part in parts):
            setattr(tune, f"total_{what}", None)
        elif limits.get(f"total_{what}"):
            for part in parts:
                setattr(tune, part, None)
    for name in _NUMBERS:
        burst = name.removesuffix("_length")
        if name.endswith("_max_length") and getattr(tune, name) and not getattr(tune, burst):
            raise _invalid(f"value '{burst}' cannot be 0 when '{name}' is set")
        limit = name.removesuffix("_max")
        if name.endswith("_max") and getattr(tune, name) and (getattr(tune, limit) or 0) > getattr(tune, name):
            raise _invalid(f"value '{name}' cannot be smaller than '{limit}'")
        if name.endswith("_max") and getattr(tune, name) and not getattr(tune, limit):
            raise _invalid(f"cannot reset '{limit}' when '{name}' is set")
    if any(getattr(tune, name) for name in _NUMBERS):
        return tune
    if wanted and wanted != _group(disk):
        what = "creating a new group/updating existing with all tune parameters zero is not supported"
        raise _invalid(what)
    return None


def _invalid(message: str) -> VirtError:
    return fault(ErrorCode.CONFIG_UNSUPPORTED, message, ErrorDomain.QEMU)
