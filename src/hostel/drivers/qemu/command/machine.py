"""The whole command line: machine, CPU, memory, boot, and then the devices."""

from __future__ import annotations

from typing import Final

from hostel.drivers.qemu.command import disk, peripheral
from hostel.drivers.qemu.command.context import Context, escape
from hostel.drivers.qemu.document import Node, devices, memory, name_of, number, text, unsupported

_REFUSED: Final = (
    "os/loader",
    "os/nvram",
    *(f"devices/{tag}" for tag in ("hostdev", "filesystem", "tpm", "smartcard", "redirdev", "watchdog", "shmem")),
    *(f"devices/{tag}" for tag in ("iommu", "panic", "memory", "vsock", "lease", "nvram", "crypto")),
)
_BOOT: Final = {"hd": "disk", "cdrom": "cdrom", "fd": "floppy", "network": ""}


def build(root: Node, context: Context) -> list[str]:
    """QEMU's command line for a live document: completed, with aliases, its volumes resolved to files.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED`` or ``XML_ERROR`` for what QEMU, or this driver, cannot do.
    """
    _refuse_unknown(root)
    machine = text(root, "os/type/@machine", "pc")
    q35 = "q35" in machine
    order = bootindexes(root)
    argv = [context.emulator, "-name", f"guest={escape(name_of(root))},debug-threads=on", "-S"]
    argv += ["-machine", _machine(root, machine), "-accel", "kvm" if root.get("type") == "kvm" else "tcg"]
    argv += _cpu(root)
    argv += ["-m", f"size={memory(root)}k", "-overcommit", "mem-lock=off", *_smp(root)]
    argv += ["-uuid", text(root, "uuid"), "-display", "none", "-no-user-config", "-nodefaults"]
    argv += ["-chardev", f"socket,id=charmonitor,path={escape(str(context.monitor))},server=on,wait=off"]
    argv += ["-mon", "chardev=charmonitor,id=monitor,mode=control"]
    argv += ["-rtc", "base=localtime" if text(root, "clock/@offset") == "localtime" else "base=utc"]
    argv += _actions(root)
    argv += _boot(root, order)
    argv += disk.arguments(root, order, q35=q35)
    argv += peripheral.interfaces(root, context, order, q35=q35)
    argv += peripheral.characters(root)
    argv += peripheral.graphics(root)
    argv += peripheral.small(root, q35=q35)
    return [*argv, "-msg", "timestamp=on"]


def _refuse_unknown(root: Node) -> None:
    """Refuse what a guest would miss if it were left out without a word."""
    for path in _REFUSED:
        if root.find(path) is not None:
            raise unsupported(f"<{path.rpartition('/')[2]}> is not supported by this driver; remove it")


def _machine(root: Node, machine: str) -> str:
    options = [escape(machine), "usb=off", "dump-guest-core=off"]
    if root.find("features") is not None and root.find("features/acpi") is None:
        options.append("acpi=off")
    return ",".join(options)


def _cpu(root: Node) -> list[str]:
    mode = text(root, "cpu/@mode", "custom")
    if mode in ("host-passthrough", "maximum", "host-model"):
        return ["-cpu", "host" if root.get("type") == "kvm" and mode != "maximum" else "max"]
    model = text(root, "cpu/model")
    return ["-cpu", escape(model or "qemu64")]


def _smp(root: Node) -> list[str]:
    count = number(root, "vcpu", 1)
    topology = root.find("cpu/topology")
    if topology is None:
        return ["-smp", f"{count},sockets={count},cores=1,threads=1"]
    sockets, cores = number(topology, "@sockets", 1), number(topology, "@cores", 1)
    threads = number(topology, "@threads", 1)
    if sockets * cores * threads != count:
        raise unsupported("CPU topology doesn't match the vcpu count: sockets x cores x threads must be it")
    return ["-smp", f"{count},sockets={sockets},cores={cores},threads={threads}"]


def _actions(root: Node) -> list[str]:
    argv: list[str] = []
    poweroff, reboot = text(root, "on_poweroff", "destroy"), text(root, "on_reboot", "restart")
    if poweroff != "destroy":
        raise unsupported(f"on_poweroff '{poweroff}'; write destroy")
    if reboot not in ("restart", "destroy"):
        raise unsupported(f"on_reboot '{reboot}'; write restart or destroy")
    if reboot == "destroy":
        argv.append("-no-reboot")
    return argv


def _boot(root: Node, order: dict[Node, int]) -> list[str]:
    options: list[str] = []
    menu = root.find("os/bootmenu")
    if menu is not None:
        options.append(f"menu={'on' if menu.get('enable') == 'yes' else 'off'}")
        if menu.get("timeout"):
            options.append(f"splash-time={number(menu, '@timeout', 0)}")
    options.append("strict=on")
    argv = ["-boot", ",".join(options)]
    for option, path in (("-kernel", "os/kernel"), ("-initrd", "os/initrd"), ("-append", "os/cmdline")):
        if value := text(root, path):
            argv += [option, value]
    return argv


def bootindexes(root: Node) -> dict[Node, int]:
    """Each bootable device's place: its ``<boot order>``, or the first device of each ``<boot dev>``."""
    bootable = [*devices(root, "disk"), *devices(root, "interface")]
    explicit = {device: number(device, "boot/@order", 0) for device in bootable if device.find("boot") is not None}
    listed = [element.get("dev", "") for element in root.findall("os/boot")]
    if explicit:
        if listed:
            raise unsupported("per-device boot elements cannot be used together with os/boot elements")
        if len(set(explicit.values())) != len(explicit) or min(explicit.values()) < 1:
            raise unsupported("boot orders must be different numbers from 1 up")
        return explicit
    if not listed:
        listed = ["hd"]
    order: dict[Node, int] = {}
    for place, kind in enumerate(listed, 1):
        if kind not in _BOOT:
            raise unsupported(f"unknown boot device '{kind}'; write hd, cdrom, fd or network")
        tag = "interface" if kind == "network" else "disk"
        for device in devices(root, tag):
            if tag == "interface" or device.get("device") == _BOOT[kind]:
                order[device] = place
                break
    return order
