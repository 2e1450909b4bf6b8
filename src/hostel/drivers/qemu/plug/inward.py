"""Plugging a device into a running machine.

The device is in the live document, marked as being on its way, before QEMU hears of it. Whoever finds the mark after a
crash asks QEMU whether the device is there: then it is kept, and otherwise taken out again with all that was added for
it (:mod:`hostel.drivers.qemu.recovery`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.link import tap
from hostel.drivers.qemu import locking, transient, vsock
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.block.chain import images
from hostel.drivers.qemu.command import (
    character,
    controller,
    disk,
    filesystem,
    hostdev,
    memory,
    network,
    passage,
    peripheral,
)
from hostel.drivers.qemu.command.context import Context, Wire, alias_of
from hostel.drivers.qemu.command.objects import Needed, passphrases, secrets
from hostel.drivers.qemu.document import unsupported
from hostel.drivers.qemu.helper.passt import is_passt
from hostel.drivers.qemu.helper.virtiofs import is_virtiofs
from hostel.drivers.qemu.hostdevs import is_nvme
from hostel.drivers.qemu.launch import Launcher
from hostel.drivers.qemu.lockmanager import holding
from hostel.drivers.qemu.plug import output, reservations
from hostel.drivers.qemu.plug.chardev import backend
from hostel.drivers.qemu.plug.definition import is_taken
from hostel.drivers.qemu.plug.element import LASTING_LIVE, Given, by_alias, insert, not_done
from hostel.drivers.qemu.plug.graph import free_backend, sweep_backends, sweep_nodes
from hostel.drivers.qemu.plug.medium import change_medium
from hostel.drivers.qemu.running import Running
from hostel.drivers.qemu.status import Plug
from hostel.errors import ErrorCode, ErrorDomain, QmpError, VirtError
from hostel.model.domain.defaults import complete
from hostel.model.domain.devices.address import DriveAddress, PciAddress
from hostel.model.domain.devices.character import Channel, CharacterBackend, CharacterSource, Console, Parallel, Serial
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.device import Device
from hostel.model.domain.devices.disk import Disk, DiskBus, DiskDevice
from hostel.model.domain.devices.filesystem import Filesystem
from hostel.model.domain.devices.hostdev import Hostdev, ScsiHostdev
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.interface import Interface, InterfaceType
from hostel.model.domain.devices.paravirtual import SharedMemory, Vsock
from hostel.model.domain.devices.platform import MemoryDevice, Watchdog
from hostel.model.domain.devices.redirection import Redirdev
from hostel.model.domain.domain import Domain
from hostel.model.domain.rules.given import check_given_device
from hostel.model.domain.rules.rule import Machine
from hostel.model.domain.validate import validate

# Whether IDE takes disks while a guest runs is QEMU's to say.
# Interfaces whose other end is another QEMU, or nothing.
_JOINED: Final = (
    InterfaceType.SERVER, InterfaceType.CLIENT, InterfaceType.MCAST, InterfaceType.UDP, InterfaceType.INTERNAL,
    InterfaceType.NULL, InterfaceType.VDS,
)  # fmt: skip
_TAKEN: Final = (DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.USB, DiskBus.IDE, DiskBus.SATA)
_DRIVES: Final = (DiskDevice.CDROM, DiskDevice.FLOPPY)
# Options of the command line, and the commands that do the same to a running machine.
_COMMANDS: Final = {
    "-blockdev": "blockdev-add", "-device": "device_add", "-netdev": "netdev_add", "-object": "object-add",
    "-chardev": "chardev-add", "-watchdog-action": "set-action",
}  # fmt: skip
_UNDO: Final = {
    "-device": "device_del", "-netdev": "netdev_del", "-object": "object-del", "-chardev": "chardev-remove",
}  # fmt: skip


def put_in(machine: Running, given: Given, launcher: Launcher) -> bool:
    """Put what is in a given drive for media into the one that is there already, as ``attach-disk`` is used too.

    Returns:
        Whether there is one.

    Raises:
        VirtError: what is there takes no media, or not this one.
    """
    if not (isinstance(given.device, Disk) and given.device.device in _DRIVES):
        return False
    drive = _of_target(machine.domain, given.device)
    if drive is None:
        return False
    if drive.device not in _DRIVES:
        raise unsupported(f"disk type of '{drive.target.dev}' does not support ejectable media")
    change_medium(machine, drive, given.device, launcher, force=False)
    return True


def plug_in(machine: Running, given: Given, launcher: Launcher) -> Device:
    """Plug a device into a running machine, with the controllers that it takes; returns it, with alias and address.

    Raises:
        VirtError: it cannot be there, or QEMU refused it; nothing is changed then.
    """
    before = machine.domain
    after, device = _with_device(machine, given, launcher)
    if isinstance(device, Interface):
        _reserve(device, launcher)
    known = {item.alias for item in before.devices.all()}
    added = list({item.alias: item for item in after.devices.all() if item.alias not in known}.values())
    marks = (*machine.status.plugs, *(Plug(way="in", alias=alias_of(it)) for it in added))
    write = functools.partial(machine.save, domain=after, plugs=marks)
    done: list[tuple[str, str]] = []
    taken: Path | None = None
    context = launcher.context(after, machine.run)
    given_secrets: list[Path] = []
    try:
        wire = _reach(machine, after, device, launcher, write)
        node = free_backend(machine) if isinstance(device, ScsiHostdev) else None
        given_secrets += launcher.give_secrets(_needed(device, node), context)
        if isinstance(device, Disk):
            reservations.serve(machine, after, device, launcher)
        if isinstance(device, Filesystem):
            taken = launcher.helpers.serve(device, after, machine.status)
        context = context._replace(outputs=output.give(machine, device))
        for item in sorted(added, key=lambda it: it is device):
            made = _options(machine.advise(after), item, context, wire if item is device else None, node)
            given_secrets += launcher.give_secrets(_passphrases(made, context), context)
            for option, properties in made:
                answer = machine.ask(_COMMANDS[option], **properties)
                done.append((option, str(properties.get("id", ""))))
                if option == "-chardev":
                    _note_end(item, answer, taken)
        _finish(machine, device)
    except BaseException:
        for option, name in reversed(done):
            if option in _UNDO:
                machine.attempt(_UNDO[option], id=name)
        output.take_back(machine, context.outputs)
        if isinstance(device, Interface):
            let_go(machine, device)
        machine.status = machine.status._replace(domain=before)
        sweep_nodes(machine)
        reservations.sweep(machine)
        transient.sweep(machine)
        sweep_backends(machine)
        machine.give_back()
        machine.save(plugs=_without(machine, added))
        holding.settle(machine)
        raise
    finally:
        for path in given_secrets:
            path.unlink(missing_ok=True)
    machine.save(plugs=_without(machine, added))
    for item in added:
        machine.publish("device-added", alias=alias_of(item))
    return device


def _reserve(device: Interface, launcher: Launcher) -> None:
    """Choose what is at an interface's end."""
    launcher.wiring.look_up(device)
    if launcher.wiring.makes(device):
        launcher.wiring.reserve(device)


def _passphrases(made: list[tuple[str, dict[str, Any]]], context: Context) -> Iterator[Needed]:
    return passphrases((properties for option, properties in made if option == "-object"), context.settings)


def _reach(
    machine: Running, after: Domain, device: Device, launcher: Launcher, write: Callable[[], None]
) -> Wire | None:
    """Have what is at a device's end on the host; ``write`` puts the document with the device on disk before.

    Raises:
        VirtError: the host, a network or QEMU refused.
    """
    wire = None
    if _is_of_host(device):
        launcher.assignment.take(after, [device], write)
    else:
        write()
    if isinstance(device, Disk):
        transient.make_for(machine, device)
        holding.hold_if_running(machine)
    machine.give_files()
    if isinstance(device, Interface) and launcher.wiring.makes(device):
        wire = _connect(machine, device, launcher)
    if _is_of_host(device) or isinstance(device, MemoryDevice):
        locking.allow(after, machine.status.pid)
    return wire


def _is_of_host(device: Device) -> bool:
    if isinstance(device, Disk):
        return is_nvme(device)
    return isinstance(device, Hostdev) or (isinstance(device, Interface) and hostdev.is_card(device))


def _needed(device: Device, node: int | None) -> Iterator[Needed]:
    """The secrets that QEMU is given for a device; ``node`` is the number of a SCSI device's."""
    if isinstance(device, Disk):
        yield from secrets(device)
    if isinstance(device, ScsiHostdev) and node is not None:
        yield from hostdev.secrets_of(device, node)


def _with_device(machine: Running, given: Given, launcher: Launcher) -> tuple[Domain, Device]:
    """The document of a machine with one device more, which is ready to be plugged in.

    Raises:
        VirtError: it cannot be there.
    """
    _check_hot(machine.domain, given)
    after = machine.domain.copy()
    device = insert(after, given)
    with reading(ErrorDomain.DOMAIN):
        complete(after, launcher.platform(after), is_live=True)
        _check_place(after, device)
        validate(after, platform := launcher.platform(after), is_given=False)
        check_given_device(Machine(after, platform), device)
    if isinstance(device, Disk):
        launcher.prepare(device)
        disks = after.devices.disks
        disks[disks.index(device)] = device = transient.put_over(device, after.name)
        last = disk.number_images([device], machine.status.nodes)
        machine.status = machine.status._replace(nodes=last)
    if isinstance(device, Vsock):
        vsock.choose(after)
    assign_aliases(after)
    return after, device


def _note_end(device: Device, answer: Any, taken: Path | None) -> None:
    """Write down which terminal QEMU has made for a character device, or that it has the program that serves it."""
    if taken is not None:
        taken.touch()  # from now on the program ends when QEMU lets go of it
    if isinstance(device, CharacterBackend) and isinstance(answer, dict) and answer.get("pty"):
        device.sources = [CharacterSource(path=str(answer["pty"]))]
        if isinstance(device, Console):
            device.tty = str(answer["pty"])


def _without(machine: Running, devices: list[Device]) -> tuple[Plug, ...]:
    aliases = {device.alias for device in devices}
    return tuple(plug for plug in machine.status.plugs if plug.alias not in aliases)


def _check_hot(domain: Domain, given: Given) -> None:
    """Refuse what no machine takes while it runs."""
    device = given.device
    if given.kind in LASTING_LIVE:
        raise not_done("live attach", given)
    match device:
        case Disk():
            if (held := _of_target(domain, device)) is not None:
                paths = " and ".join(f"'{_path(item) or '<null>'}'" for item in (held, device))
                what = f"target '{device.target.dev}' duplicated for disk sources {paths}"
                raise fault(ErrorCode.XML_ERROR, what, ErrorDomain.DOMAIN)
            if device.device == DiskDevice.FLOPPY:
                raise _not_hot("floppy device hotplug isn't supported")
        case Controller():
            if device.type != ControllerType.SCSI:
                raise _not_hot(f"'{device.type}' controller cannot be hot plugged.")
            if any(it.type == device.type and it.index == device.index for it in domain.devices.controllers):
                what = f"target {device.type}:{device.index} already exists"
                raise fault(ErrorCode.OPERATION_FAILED, what, ErrorDomain.QEMU)
        case MemoryDevice() if device.model == "sgx-epc":
            raise _not_hot("hotplug is not supported for this type of memory device")
        case Interface() if is_passt(device):
            raise _not_hot("an interface with backend passt cannot be hot plugged; add it with --config")
        case Interface(type=kind) if kind in _JOINED:
            raise _not_hot(f"hotplug of interface type of {kind} is not implemented yet")
        case _:
            _check_small(domain, given)
    alias = getattr(device, "alias", None)
    if alias is not None and by_alias(domain, alias) is not None:
        raise unsupported(f"non unique alias detected: {alias}")


def _of_target(domain: Domain, disk: Disk) -> Disk | None:
    return next((item for item in domain.devices.disks if item.target.dev == disk.target.dev), None)


def _path(disk: Disk) -> str | None:
    top = next(images(disk), None)
    return top.path if top is not None else None


def _check_small(domain: Domain, given: Given) -> None:
    match given.device:
        case Console() as console if console.target is not None and console.target.type == "serial":
            raise unsupported("unsupported console target type serial")
        case Serial() | Parallel() | Console() | Channel():
            if is_taken(domain, given):
                raise fault(ErrorCode.OPERATION_INVALID, "chardev already exists", ErrorDomain.QEMU)
        case Filesystem() as directory:
            if not is_virtiofs(directory):
                raise _not_hot("only virtiofs filesystems can be hotplugged")
        case Input(bus="ps2"):
            raise _not_hot("input device on bus 'ps2' cannot be hot plugged.")
        case SharedMemory(model="ivshmem"):
            raise _not_hot("live attach of shmem model 'ivshmem' is not supported")
        case Watchdog() as watchdog:
            if domain.devices.watchdogs:
                raise fault(ErrorCode.OPERATION_INVALID, "domain already has a watchdog", ErrorDomain.QEMU)
            if watchdog.model != "i6300esb":
                raise _not_hot(f"hotplug of watchdog of model {watchdog.model} is not supported")
        case Vsock():
            if domain.devices.vsock is not None:
                raise _not_hot("the domain already has a vsock device")
        case _:
            pass


def _not_hot(message: str) -> VirtError:
    return fault(ErrorCode.OPERATION_UNSUPPORTED, message, ErrorDomain.QEMU)


def _check_place(domain: Domain, device: Device) -> None:
    """Refuse a bus that takes nothing while the machine runs, and a place that only a new bus would have."""
    if isinstance(device, Disk):
        bus = device.target.bus
        has_sata = any(it.type == ControllerType.SATA and it.alias is not None for it in domain.devices.controllers)
        if bus == DiskBus.SATA and not has_sata:
            what = "Could not find sata controller with index 0 required for device"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        if bus not in _TAKEN:
            raise _not_hot(f"disk bus '{bus}' cannot be hotplugged.")
        if bus == DiskBus.VIRTIO and device.device == DiskDevice.CDROM:
            raise _not_hot("cdrom device with virtio bus isn't supported")
        if bus == DiskBus.SCSI and isinstance(device.address, DriveAddress):
            place = device.address.place
            others = (it for it in domain.devices.disks if it is not device and it.target.bus == DiskBus.SCSI)
            if any(isinstance(it.address, DriveAddress) and it.address.place == place for it in others):
                what = "Domain already contains a disk with that address"
                raise fault(ErrorCode.OPERATION_INVALID, what, ErrorDomain.QEMU)
    fresh = [item for item in domain.devices.controllers if item.alias is None and item.type == ControllerType.PCI]
    for item in fresh:
        places = (it.address for it in domain.devices.all())
        if any(isinstance(place, PciAddress) and place.bus == item.index for place in places):
            what = "No more available PCI slots; shut the domain off, and add the device with --config"
            raise fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
        domain.devices.controllers.remove(item)
    for item in domain.devices.controllers:
        if item.alias is None and item is not device and item.type != ControllerType.SCSI:
            raise _not_hot(f"'{item.type}' controller cannot be hot plugged.")


def _file_names(interface: Interface) -> list[str]:
    """What QEMU knows the files of an interface by: at most a tap's and the kernel's back end for each queue."""
    queues = (interface.driver.queues if interface.driver is not None else None) or 1
    return [f"{alias_of(interface)}-{number}" for number in range(2 * queues)]


def let_go(machine: Running, interface: Interface) -> None:
    """Let go of the host's end of an interface that did not come into the machine."""
    for name in _file_names(interface):
        machine.attempt("closefd", fdname=name)  # one that nothing has taken
    machine.release(interface)


def _connect(machine: Running, interface: Interface, launcher: Launcher) -> Wire:
    """Make the host's end of an interface, and give it to QEMU under names.

    Raises:
        VirtError: the host, or QEMU, refused.
    """
    made = launcher.wiring.connect(machine.domain, interface)
    files = [int(file) for file in (*made.taps, *made.vhosts)]
    names = _file_names(interface)[: len(files)]
    try:
        for name, file in zip(names, files, strict=True):
            machine.qmp.pass_file(name, file)
    except QmpError as error:
        raise machine.translated(error, "getfd") from error
    finally:
        tap.close(files)
    return Wire(names[: len(made.taps)], names[len(made.taps) :])


def _options(
    domain: Domain, device: Device, context: Context, wire: Wire | None, node: int | None
) -> list[tuple[str, dict[str, Any]]]:
    """What brings a device into the machine: options of the command line, in order."""
    order = {id(device): device.boot.order} if getattr(device, "boot", None) is not None else {}  # type: ignore[attr-defined]
    match device:
        case Disk():
            argv = disk.disk_arguments(domain, device, order.get(id(device)), context)
        case Interface():
            wires = {alias_of(device): wire} if wire is not None else {}
            argv = network.card_arguments(domain, device, context._replace(wires=wires), order.get(id(device)))
        case Controller():
            argv = controller.one(domain, device, order)
        case Hostdev():
            argv = hostdev.one(domain, device, context, order.get(id(device)), number=node)
        case MemoryDevice():
            argv = memory.device_arguments(domain, device, context)
        case Serial() | Parallel() | Console() | Channel():
            argv = character.one(domain, device, context)
        case Redirdev():
            argv = passage.redirection(domain, device, context, order.get(id(device)))
        case SharedMemory():
            argv = passage.shared_memory(domain, device)
        case Vsock():
            argv = passage.vsock(domain, context)
        case Filesystem():
            argv = filesystem.vhost_user(domain, device, context, order.get(id(device)))
        case _:
            argv = peripheral.one(domain, device, context)
    if len(argv) % 2 or any(option not in _COMMANDS for option in argv[::2]):
        raise _not_hot(f"live attach of this <{device.TAG}> is not supported; add it with --config")
    return [(option, _properties(option, value)) for option, value in zip(argv[::2], argv[1::2], strict=True)]


def _properties(option: str, value: str) -> dict[str, Any]:
    """What a command takes for what an option of the command line takes."""
    match option:
        case "-chardev":
            return backend(value)
        case "-watchdog-action":
            return {"watchdog": value}
        case _:
            return dict(json.loads(value))


def _finish(machine: Running, device: Device) -> None:
    """Set what no command line has."""
    if isinstance(device, Disk) and device.iotune is not None:
        machine.ask("block_set_io_throttle", **disk.throttle(device))
    if isinstance(device, Interface) and device.link_state == "down":
        machine.ask("set_link", name=alias_of(device), up=False)
