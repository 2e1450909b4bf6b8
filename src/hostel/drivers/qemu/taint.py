"""What of a machine is beyond what is supported, and what of it will be given up (``qemuDomainObjCheckTaint``)."""

from __future__ import annotations

import enum
import json
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.drivers.base.messages import MessageFlag
from hostel.drivers.qemu import probe
from hostel.model.domain.devices.disk import Disk, DiskDevice
from hostel.model.domain.domain import Domain, DomainType

_CDROMS: Final = (11,)  # the kernel's major number of SCSI CD-ROM drives


class Taint(enum.StrEnum):
    """``virDomainTaintFlags``: why what goes wrong with a machine may be its own fault."""

    CUSTOM_ARGV = "custom-argv"
    CUSTOM_MONITOR = "custom-monitor"
    HIGH_PRIVILEGES = "high-privileges"
    SHELL_SCRIPTS = "shell-scripts"
    HOST_CPU = "host-cpu"
    CDROM_PASSTHROUGH = "cdrom-passthrough"
    CUSTOM_DTB = "custom-dtb"
    CUSTOM_GA_COMMAND = "custom-ga-command"
    DEPRECATED_CONFIG = "deprecated-config"


# In libvirt's order.
_MESSAGES: Final = {
    Taint.CUSTOM_ARGV: "custom configuration parameters specified",
    Taint.CUSTOM_MONITOR: "custom monitor control commands issued",
    Taint.HIGH_PRIVILEGES: "running with undesirable elevated privileges",
    Taint.SHELL_SCRIPTS: "network configuration using opaque shell scripts",
    Taint.HOST_CPU: "potentially unsafe use of host CPU passthrough",
    Taint.CDROM_PASSTHROUGH: "use of host cdrom passthrough",
    Taint.CUSTOM_DTB: "custom device tree blob used",
    Taint.CUSTOM_GA_COMMAND: "custom guest agent control commands issued",
    Taint.DEPRECATED_CONFIG: "use of deprecated configuration settings",
}


class Finding(NamedTuple):
    """One such thing, and what exactly; empty where that is clear."""

    taint: Taint
    detail: str = ""


def findings(domain: Domain, emulator: str, cache: Path, *, privileged: bool, moved: bool) -> list[Finding]:
    """What is to be said of a machine as it starts.

    Args:
        domain: its live document.
        emulator: the program that runs it.
        cache: where QEMU's answers are remembered.
        privileged: whether it runs as root.
        moved: whether it comes from another host.
    """
    return list(_findings(domain, emulator, cache, privileged=privileged, moved=moved))


def _findings(domain: Domain, emulator: str, cache: Path, *, privileged: bool, moved: bool) -> Iterator[Finding]:
    if privileged:
        yield Finding(Taint.HIGH_PRIVILEGES)
    line = domain.qemu_commandline
    if line is not None and (line.arguments or line.environment):
        yield Finding(Taint.CUSTOM_ARGV)
    yield from _deprecated(domain, emulator, cache)
    if moved and domain.cpu is not None and domain.cpu.mode in ("host-passthrough", "maximum"):
        yield Finding(Taint.HOST_CPU)
    if any(map(_is_host_drive, domain.devices.disks)):
        yield Finding(Taint.CDROM_PASSTHROUGH)
    if any(getattr(interface, "script", None) is not None for interface in domain.devices.interfaces):
        yield Finding(Taint.SHELL_SCRIPTS)
    if domain.os is not None and domain.os.dtb is not None:
        yield Finding(Taint.CUSTOM_DTB)


def _deprecated(domain: Domain, emulator: str, cache: Path) -> Iterator[Finding]:
    machine = domain.os.type.machine if domain.os is not None else None
    types = json.loads(probe.machine_types(emulator, cache) or "[]")
    if any(item["name"] == machine and item.get("deprecated") for item in types):
        yield Finding(Taint.DEPRECATED_CONFIG, f"machine type '{machine}'")
    cpu = domain.cpu
    model = cpu.model.name if cpu is not None and cpu.model is not None and cpu.mode in (None, "custom") else None
    if model is not None:
        accelerator = "kvm" if domain.type == DomainType.KVM else "tcg"
        models = json.loads(probe.cpu_definitions(emulator, cache, accelerator) or "[]")
        if any(item["name"] == model and item.get("deprecated") for item in models):
            yield Finding(Taint.DEPRECATED_CONFIG, f"CPU model '{model}'")


def _is_host_drive(disk: Disk) -> bool:
    path = disk.source.dev if disk.source is not None else None
    if disk.device != DiskDevice.CDROM or path is None:
        return False
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and (status.st_rdev >> 8) & 0xFFF in _CDROMS


def kept(found: Iterable[Finding]) -> dict[str, Any]:
    """Findings as the state of a machine has them."""
    found = list(found)
    taints = dict.fromkeys(str(finding.taint) for finding in found)
    details = tuple(finding.detail for finding in found if finding.taint is Taint.DEPRECATED_CONFIG)
    return {"taints": " ".join(taints), "deprecations": details}


def note(number: int, finding: Finding) -> str:
    """A finding as the domain's log has it."""
    detail = f" ({finding.detail})" if finding.detail else ""
    return f"Domain id={number} is tainted: {finding.taint}{detail}"


def messages(taints: str, deprecations: tuple[str, ...], flags: MessageFlag) -> list[str]:
    """What is said of a running machine."""
    said: list[str] = []
    if not flags or flags & MessageFlag.TAINTING:
        said += [f"tainted: {text}" for taint, text in _MESSAGES.items() if taint in taints.split()]
    if not flags or flags & MessageFlag.DEPRECATION:
        said += [f"deprecated configuration: {text}" for text in deprecations]
    return said
