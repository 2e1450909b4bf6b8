"""Mediated devices as ``mdevctl`` makes and keeps them: its command lines, its configuration, and its list."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from hostel.drivers import tool
from hostel.drivers.fault import fault, printable
from hostel.errors import ErrorCode, ErrorDomain, ModelError, VirtError
from hostel.model.node_device import NodeDevice, complete
from hostel.model.node_device_capability import DeviceParent, MediatedAttribute, MediatedCapability, MediatedIdentity

LIST_DEFINED: Final = ("mdevctl", "list", "--dumpjson", "--defined")
_ROOT: Final = "computer"  # the parent of what hangs on a device that is not there
_DEFINITIONS: Final = Path("/etc/mdevctl.d")  # a folder for each parent, a file for each device
_TIMEOUT: Final = 60.0  # seconds; a vendor's driver may take its time to make a device


class Kept(NamedTuple):
    """A device that ``mdevctl`` keeps, and whether the host starts it."""

    device: NodeDevice
    autostart: bool


def new_command(verb: str, device: NodeDevice, parent_address: str) -> list[str]:
    """``start`` or ``define`` a device that is new; it reads the :func:`configuration` and prints the UUID."""
    uuid = mediated(device).uuid
    found = ["mdevctl", verb, f"--parent={parent_address}", "--jsonfile=/dev/stdin"]
    return found if uuid is None else [*found, f"--uuid={uuid}"]


def known_command(verb: str, device: NodeDevice) -> list[str]:
    """``start``, ``stop`` or ``undefine`` a device that ``mdevctl`` keeps.

    Raises:
        ModelError: it has no UUID.
    """
    return ["mdevctl", verb, f"--uuid={_uuid(device)}"]


def autostart_command(device: NodeDevice, *, autostart: bool) -> list[str]:
    """Let the host start a device, or leave that to others.

    Raises:
        ModelError: it has no UUID.
    """
    return ["mdevctl", "modify", "--uuid", _uuid(device), "--auto" if autostart else "--manual"]


def configuration(device: NodeDevice, *, autostart: bool = False) -> str:
    """What ``mdevctl`` is told of a new device on its standard input."""
    capability = mediated(device)
    found: dict[str, Any] = {"mdev_type": capability.type.id, "start": "auto" if autostart else "manual"}
    if capability.attributes:
        found["attrs"] = [{attribute.name: attribute.value} for attribute in capability.attributes]
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def mediated(device: NodeDevice) -> MediatedCapability:
    """What a mediated device is.

    Raises:
        ModelError: it is none.
    """
    for capability in device.capabilities:
        if isinstance(capability, MediatedCapability):
            return capability
    raise ModelError("/device/capability", "Unsupported device type", code=ErrorCode.CONFIG_UNSUPPORTED)


def mediated_name(uuid: str, parent_address: str) -> str:
    """Libvirt's name of a mediated device."""
    return re.sub("[^a-zA-Z0-9]", "_", f"mdev_{uuid}_{parent_address}")


def _uuid(device: NodeDevice) -> str:
    uuid = mediated(device).uuid
    if uuid is None:
        raise ModelError("/device/capability/uuid", f"the mediated device '{device.name}' has no UUID")
    return uuid


def read_list(output: str, parent_name: Callable[[str], str | None]) -> list[Kept]:
    """The devices that ``mdevctl list`` printed; ``parent_name`` names a device of the host by its address.

    Raises:
        VirtError: it printed something else.
    """
    try:
        listed = json.loads(output)
    except (ValueError, RecursionError):
        raise _wrong("mdevctl JSON response contains no devices") from None
    if not isinstance(listed, list):
        raise _wrong("mdevctl JSON response contains no devices")
    if len(listed) > 1:
        raise _wrong("Unexpected format for mdevctl response")
    return [kept for parents in listed for kept in _read_parents(parents, parent_name)]


def _read_parents(parents: object, parent_name: Callable[[str], str | None]) -> Iterator[Kept]:
    if not isinstance(parents, dict):
        raise _wrong("device list is not an object")
    for address, devices in parents.items():
        if not isinstance(devices, list):
            raise _wrong("Parent device's JSON object data is not an array")
        for device in devices:
            try:
                yield _read_device(device, address, parent_name(address) or _ROOT)
            except (ValueError, KeyError, AttributeError, TypeError):
                raise _wrong(f"Unable to parse child device of '{address}'") from None


def _read_device(listed: Any, address: str, parent: str) -> Kept:
    ((uuid, properties),) = listed.items()
    pairs = [pair for attribute in properties.get("attrs", ()) for pair in _only(attribute)]
    capability = MediatedCapability(
        type=MediatedIdentity(id=_string(properties["mdev_type"])),
        uuid=uuid,
        parent_address=address,
        attributes=[MediatedAttribute(name=name, value=_string(value)) for name, value in pairs],
    )
    device = NodeDevice(name=mediated_name(uuid, address), parent=DeviceParent(name=parent), capabilities=[capability])
    complete(device)
    return Kept(device, properties.get("start") == "auto")


def _only(attribute: Any) -> list[tuple[str, Any]]:
    (pair,) = attribute.items()
    return [pair]


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value


def _wrong(reason: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, reason, ErrorDomain.NODEDEV)


class Mdevctl:
    """The tool itself.

    Args:
        definitions: where it keeps what is defined.
    """

    def __init__(self, definitions: Path = _DEFINITIONS) -> None:
        self._definitions = definitions

    def defined(self, parent_name: Callable[[str], str | None]) -> list[Kept]:
        """What is defined; nothing where the tool is not installed.

        Raises:
            VirtError: ``INTERNAL_ERROR``: the tool failed.
        """
        if tool.find("mdevctl") is None or not any(path.is_file() for path in self._definitions.glob("*/*")):
            return []
        return read_list(self._run(LIST_DEFINED, "failed to query mdevs from mdevctl"), parent_name)

    def start_new(self, device: NodeDevice, parent_address: str) -> str:
        """Make a device that is not defined; its UUID."""
        command = new_command("start", device, parent_address)
        printed = self._run(command, "Unable to start mediated device", configuration(device)).strip()
        return printed or _uuid(device)

    def define(self, device: NodeDevice, parent_address: str) -> str:
        """Define a device; its UUID."""
        command = new_command("define", device, parent_address)
        printed = self._run(command, "Unable to define mediated device", configuration(device)).strip()
        return printed or _uuid(device)

    def start(self, device: NodeDevice) -> None:
        """Make a device that is defined."""
        self._run(known_command("start", device), "Unable to create mediated device")

    def stop(self, device: NodeDevice) -> None:
        """Take a device away."""
        self._run(known_command("stop", device), f"Unable to destroy '{device.name}'")

    def undefine(self, device: NodeDevice) -> None:
        """Forget a definition."""
        self._run(known_command("undefine", device), "Unable to undefine mediated device")

    def set_autostart(self, device: NodeDevice, autostart: bool) -> None:
        """Let the host make the device when it starts, or not."""
        command = autostart_command(device, autostart=autostart)
        self._run(command, f"Unable to set autostart on '{device.name}'")

    @staticmethod
    def _run(command: Sequence[str], failed: str, given: str = "") -> str:
        """Run it to its end; what it printed.

        Raises:
            VirtError: ``SYSTEM_ERROR``: it is not installed; ``INTERNAL_ERROR``, with what it said: it failed;
                ``OPERATION_TIMEOUT``.
        """
        done = tool.run(command, ErrorDomain.NODEDEV, expected=range(256), timeout=_TIMEOUT, stdin=given)
        if done.code:
            said = printable(" ".join(done.err.split()))
            raise _wrong(f"{failed}: {said or 'Unknown error'}")
        return done.out
