"""What building a command line needs besides the document."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hostel.drivers.qemu.command.host import HostDevices, LargePages, Sysfs
from hostel.drivers.qemu.process import run_of
from hostel.drivers.qemu.settings import Settings
from hostel.model.domain.devices.device import Device
from hostel.model.domain.platform import Platform

if TYPE_CHECKING:
    from hostel.model.host_sysinfo import HostSysinfo


class Wire(NamedTuple):
    """The host's end of an interface that is given to QEMU open.

    Attributes:
        taps: the open files of the tap, one for each queue: their numbers, or the names that QEMU has them by.
        vhosts: those of the kernel's own back end; none where QEMU is to do it.
    """

    taps: Sequence[int | str]
    vhosts: Sequence[int | str] = ()


class Output(NamedTuple):
    """What QEMU opens in place of a file that a character device writes to.

    Attributes:
        set: the number of its set of descriptors.
        file: the descriptor; None where QEMU has it already.
    """

    set: int
    file: int | None = None

    @property
    def path(self) -> str:
        """What QEMU knows it by."""
        return f"/dev/fdset/{self.set}"


class Context(NamedTuple):
    """Facts that are not in the document.

    Attributes:
        emulator: QEMU's path.
        monitor: where QEMU makes its QMP socket; other sockets that it makes go beside it.
        bridge: the host bridge of a virtual network, or None where it is user-mode.
        platform: what the emulator brings; None where the host's own QEMU is meant.
        hands_over: whether QEMU is given open descriptors of taps and of vhost, and does not open them itself.
        certificates: the folders of X.509 credentials for clients, by protocol, and of those of character devices.
        host: finds devices of the host.
        wires: the host's ends of interfaces that are open, by the alias.
        memory_files: the directory for files that are the guest's memory.
        pages: the host's large pages.
        is_confined: whether QEMU has the kernel refuse it what it does not need.
        smbios: reads what the host's firmware tells of it; None where that is not known.
        has_spice: whether it has SPICE, which may be a module that is not installed.
        settings: what the host says for all machines.
        descriptors: open files that stand for images, by the group that a document names.
        outputs: what stands for files that character devices write to, by ``ALIAS-source`` and ``ALIAS-log``.
    """

    emulator: str
    monitor: Path
    bridge: Callable[[str], str | None]
    platform: Platform | None = None
    hands_over: bool = False
    certificates: Mapping[str, str] = {}
    host: HostDevices = Sysfs()
    wires: Mapping[str, Wire] = {}
    memory_files: str = "/tmp"
    pages: LargePages = LargePages()
    is_confined: bool = False
    smbios: Callable[[], HostSysinfo | None] = lambda: None
    has_spice: bool = True
    settings: Settings = Settings()
    descriptors: Mapping[str, Sequence[int]] = {}
    outputs: Mapping[str, Output] = {}

    def has(self, feature: str) -> bool:
        """Whether the emulator has a feature; the host's own QEMU is taken to have it."""
        return self.platform is None or self.platform.has(feature)

    def files(self) -> list[int]:
        """The open files that QEMU gets when it is started."""
        found = [int(file) for wire in self.wires.values() for file in (*wire.taps, *wire.vhosts)]
        found += [file for group in self.descriptors.values() for file in group]
        return [*found, *(item.file for item in self.outputs.values() if item.file is not None)]

    def secret(self, name: str) -> str:
        """The file in which QEMU finds the value of a secret object; only its owner reads it."""
        return str(self.run / f"{name}.secret")

    @property
    def run(self) -> Path:
        """Where that is which others than QEMU make for it in this run."""
        return run_of(self.monitor.parent)

    @property
    def events(self) -> Path:
        """Where QEMU makes a second QMP socket, for whoever listens to its events."""
        return self.monitor.with_name("events")


def escape(value: str) -> str:
    """Escape a value for QEMU's ``key=value`` options: a comma is doubled."""
    return value.replace(",", ",,")


def option(name: str, properties: dict[str, Any]) -> list[str]:
    """An option whose value is JSON, so that no character of it means anything; what is None is left out.

    Except for ``backing``, where None says that there is none.
    """
    given = {key: value for key, value in properties.items() if value is not None or key == "backing"}
    return [name, json.dumps(given)]


def alias_of(device: Device) -> str:
    """The alias that every device of a live document has.

    Raises:
        ValueError: this one has none.
    """
    if device.alias is None:
        raise ValueError(f"<{device.TAG}> has no alias")
    return device.alias
