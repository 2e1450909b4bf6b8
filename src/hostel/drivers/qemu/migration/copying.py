"""Disks that the hosts do not share: mirrored into the destination's NBD server, until the guest goes over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from hostel.drivers.base.migration import MigrateFlag
from hostel.drivers.fault import fault
from hostel.drivers.qemu.command.disk import top_node
from hostel.drivers.qemu.machines import failed
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.disk import Disk

PREFIX: Final = "migration-"


def export_of(disk: Disk) -> str:
    """What the destination's NBD server calls a disk: what libvirt does."""
    return f"drive-{disk.alias}"


def server(uri: str | None, host: str, port: int) -> dict[str, Any]:
    """Where the destination's NBD server is: what was said, or a port of the host.

    Raises:
        VirtError: ``INVALID_ARG``.
    """
    if uri is None:
        return {"type": "inet", "host": host, "port": str(port)}
    parts = urlsplit(uri)
    try:
        number = parts.port
    except ValueError:
        number = None
    match parts.scheme:
        case "unix" if parts.path:
            return {"type": "unix", "path": parts.path}
        case "unix":
            raise _invalid("UNIX disks URI does not include path")
        case "tcp" if parts.hostname:
            return {"type": "inet", "host": parts.hostname, "port": str(number or port)}
        case "tcp":
            raise _invalid(f"URI with tcp scheme did not provide a server part: {uri}")
        case "":
            raise _invalid(f"No URI scheme specified: {uri}")
    raise _invalid(f"Unsupported scheme in disks URI: {parts.scheme}")


def begin(
    machine: Running,
    disks: Sequence[Disk],
    where: dict[str, Any],
    flags: MigrateFlag,
    speed: int,
    tls: Mapping[str, str],
) -> None:
    """Begin to mirror disks; the caller has written down which, and given QEMU the certificates that ``tls`` names.

    Raises:
        VirtError: QEMU refused, or cannot reach the server.
    """
    for disk in disks:
        name = f"{PREFIX}{disk.target.dev}"
        nbd = {"driver": "nbd", "node-name": f"{name}-storage", "server": where, "export": export_of(disk), **tls}
        machine.ask("blockdev-add", **nbd, cache={"direct": True, "no-flush": False}, **{"auto-read-only": False})
        machine.ask("blockdev-add", driver="raw", file=f"{name}-storage", **{"node-name": f"{name}-format"})
        job = {"job-id": name, "device": top_node(disk), "target": f"{name}-format", "auto-dismiss": False}
        job["sync"] = "top" if flags & MigrateFlag.NON_SHARED_INC else "full"
        if flags & MigrateFlag.NON_SHARED_SYNCHRONOUS_WRITES:
            job["copy-mode"] = "write-blocking"
        machine.ask("blockdev-mirror", speed=speed, **job)


def are_ready(machine: Running, disks: Sequence[str]) -> bool:
    """Whether every copy is as new as its disk.

    Raises:
        VirtError: one has failed.
    """
    check(machine, disks)
    ready = {str(job["device"]) for job in machine.ask("query-block-jobs") if job.get("ready")}
    return all(f"{PREFIX}{name}" in ready for name in disks)


def check(machine: Running, disks: Sequence[str]) -> None:
    """Raise what a copy has failed with.

    Raises:
        VirtError: ``OPERATION_FAILED``.
    """
    known = {str(job["id"]): job for job in machine.ask("query-jobs")}
    for name in disks:
        job = known.get(f"{PREFIX}{name}")
        if job is None or job.get("error"):
            reason = f": {job['error']}" if job is not None else ""
            raise failed(f"migration of disk {name} failed{reason}")


def are_over(machine: Running, disks: Sequence[str]) -> bool:
    """Whether every copy has ended, in order.

    Raises:
        VirtError: one has failed: the destination lacks data.
    """
    check(machine, disks)
    names = {f"{PREFIX}{name}" for name in disks}
    return all(job["status"] == "concluded" for job in machine.ask("query-jobs") if job["id"] in names)


def end(machine: Running, disks: Sequence[str]) -> None:
    """End copies that are ready: what they have is the disk as it is now.

    Raises:
        VirtError: QEMU refused.
    """
    for name in disks:
        machine.ask("block-job-cancel", device=f"{PREFIX}{name}")


def drop(machine: Running) -> None:
    """Take away what copying has made in QEMU, in whatever state; what is not there is no mistake."""
    jobs = [str(job["id"]) for job in machine.attempt("query-jobs") or [] if str(job["id"]).startswith(PREFIX)]
    for name in jobs:
        machine.attempt("block-job-cancel", device=name, force=True)
    for name in jobs:
        _dismiss(machine, name)
    nodes = [str(node["node-name"]) for node in machine.attempt("query-named-block-nodes", flat=True) or []]
    for kind in ("format", "storage"):
        for node in nodes:
            if node.startswith(PREFIX) and node.endswith(f"-{kind}"):
                machine.attempt("blockdev-del", **{"node-name": node})


def _dismiss(machine: Running, name: str) -> None:
    for _ in range(100):
        found = next((job for job in machine.attempt("query-jobs") or [] if job["id"] == name), None)
        if found is None:
            return
        if found["status"] == "concluded":
            machine.attempt("job-dismiss", id=name)
            return
        time.sleep(0.02)


def _invalid(message: str) -> VirtError:
    return fault(ErrorCode.INVALID_ARG, message, ErrorDomain.QEMU)
