"""A command line of QEMU as a domain document: the machine that it starts.

What a document has no element for goes to QEMU past it, in ``<qemu:commandline>``; what a machine of this driver has
anyway, such as a monitor, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from hostel.model.domain.clock import Clock
from hostel.model.domain.cpu import Vcpu
from hostel.model.domain.devices.character import CharacterSource, CharacterType, Serial
from hostel.model.domain.devices.controller import Controller, ControllerType
from hostel.model.domain.devices.graphics import Graphics, GraphicsType, Listen
from hostel.model.domain.devices.input import Input
from hostel.model.domain.devices.paravirtual import MemoryBalloon
from hostel.model.domain.devices.video import Video, VideoModel
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.features import DirtyRing, Features, Kvm, SystemManagement, Tcg, TranslationCache
from hostel.model.domain.memory import Memory
from hostel.model.domain.os import Bios, Loader, Os, OsType
from hostel.model.domain.passthrough import QemuArgument, QemuCommandline, QemuVariable
from hostel.model.native.qemu.boot import read_boot, read_firmware
from hostel.model.native.qemu.commandline import CommandLine, Option, Properties, parse_command_line
from hostel.model.native.qemu.drive import SHORT, Drives
from hostel.model.native.qemu.memory import MemoryObjects
from hostel.model.native.qemu.network import Networks
from hostel.model.native.qemu.place import pci_place
from hostel.model.native.qemu.processor import read_cpu, read_smp
from hostel.model.native.settings import refused, whole_number
from hostel.units import parse_size

_KIB: Final = 1024
_DEFAULT_MEMORY: Final = 128 * _KIB  # KiB; what QEMU gives
_VNC_PORT: Final = 5900
_ARCHITECTURES: Final = {"i386": "i686", "arm": "armv7l"}
_MACHINES: Final = {"virt": "virtio", "s390": "virtio"}
_VIDEOS: Final = {"std": "vga", "cirrus": "cirrus", "vmware": "vmvga", "qxl": "qxl", "virtio": "virtio"}
_INPUTS: Final = {"usb-tablet": "tablet", "usb-kbd": "keyboard", "usb-mouse": "mouse"}
# What this driver says itself, or what only concerns how QEMU is started.
_SAID_ANYWAY: Final = """
S daemonize pidfile monitor qmp mon no-user-config nodefconfig no-shutdown nodefaults display msg D d sandbox runas
chroot enable-kvm no-kvm nographic sdl curses full-screen alt-grab ctrl-grab no-quit no-fd-bootchk usb
"""
_LEFT_OUT: Final = frozenset(_SAID_ANYWAY.split())
_NOT_OURS: Final = frozenset(("LC_ALL", "PATH", "HOME", "USER", "LOGNAME"))
# Back ends of libvirt's own, which a machine gets anyway.
_OWN_SOCKETS: Final = ("charmonitor", "charevents")
_USB: Final = {"piix3-usb-uhci": "piix3-uhci", "qemu-xhci": "qemu-xhci", "nec-usb-xhci": "nec-xhci"}
_MACHINE_ANYWAY: Final = ("usb", "dump-guest-core", "mem-merge")


def read_qemu(text: str) -> Domain:
    """Read a command line.

    Raises:
        ModelError: it is none, or the machine cannot be said in a document; the path is the option.
    """
    return _Reader(parse_command_line(text)).read()


class _Reader:
    """Reads one command line."""

    def __init__(self, line: CommandLine) -> None:
        self._line = line
        self._domain = Domain(type=DomainType.QEMU, name="unnamed", os=Os(type=OsType(value="hvm")))
        assert self._domain.os is not None
        self._os = self._domain.os
        self._features = Features(acpi=True)
        self._past: list[str] = []
        self._kvm = False
        self._memories = MemoryObjects()
        self._own_memory: str | None = None
        self._is_on_serial = False
        program = PurePosixPath(line.program).name
        self._read_program(program)
        machine = next((option.value for option in line.options if option.name in ("machine", "M")), "")
        kind = Properties("machine", machine, "type").take("type") or ""
        is_q35 = kind == "q35" or kind.startswith("pc-q35-")
        interface = next((value for prefix, value in _MACHINES.items() if kind.startswith(prefix)), "ide")
        self._drives = Drives(has_ahci=is_q35, interface=interface)
        self._networks = Networks("e1000e" if is_q35 else "virtio" if interface == "virtio" else "e1000")
        self._names = {option.name for option in line.options}

    def _read_program(self, program: str) -> None:
        if "/" in self._line.program:
            self._domain.devices.emulator = self._line.program
        self._kvm = program in ("kvm", "qemu-kvm")
        arch = re.fullmatch(r"qemu-system-(\w+)", program)
        self._os.type.arch = _ARCHITECTURES.get(arch[1], arch[1]) if arch is not None else None

    def read(self) -> Domain:
        """The document."""
        domain = self._domain
        for option in self._line.options:
            self._read_option(option)
        if self._own_memory is not None:
            domain.memory_backing = self._memories.take(self._own_memory)
        self._past += self._memories.others()
        self._drives.finish()
        self._networks.finish()
        self._add_defaults()
        domain.type = DomainType.KVM if self._kvm else DomainType.QEMU
        domain.memory = domain.memory or Memory(unit="KiB", value=_DEFAULT_MEMORY)
        domain.vcpu = domain.vcpu or Vcpu(value=1)
        domain.features = self._features
        read_firmware(self._os, self._drives)
        devices = domain.devices
        devices.disks, devices.interfaces = self._drives.disks, self._networks.interfaces
        devices.controllers = self._drives.controllers
        self._count_orders()
        if self._is_on_serial and devices.serials:
            self._os.bios = self._os.bios or Bios()
            self._os.bios.use_serial = True
        variables = [
            QemuVariable(name=name, value=value)
            for name, value in self._line.environment.items()
            if name not in _NOT_OURS and not name.startswith("XDG_")
        ]
        if self._past or variables:
            arguments = [QemuArgument(value=word) for word in self._past]
            domain.qemu_commandline = QemuCommandline(arguments=arguments, environment=variables)
        return domain

    def _count_orders(self) -> None:
        """A document's orders begin with 1, QEMU's with 0, and libvirt's command lines with 1 too."""
        devices = self._domain.devices
        orders = [item.boot for item in (*devices.disks, *devices.interfaces) if item.boot is not None]
        if not orders:
            return
        self._os.boot = []
        if all(boot.order > 1 for boot in orders):
            for boot in orders:
                boot.order -= 1

    def _read_option(self, option: Option) -> None:
        readers: dict[str, Callable[[Option], None]] = {
            "name": self._name, "machine": self._machine, "M": self._machine, "accel": self._accel, "cpu": self._cpu,
            "smp": self._smp, "m": self._memory, "uuid": self._uuid, "boot": self._boot, "rtc": self._clock,
            "localtime": self._local_time, "vnc": self._vnc, "vga": self._video, "serial": self._serial,
            "kernel": self._kernel, "initrd": self._kernel, "append": self._kernel, "dtb": self._kernel,
            "bios": self._bios, "drive": self._drive, "blockdev": self._node, "device": self._device,
            "netdev": self._netdev, "nic": self._nic, "net": self._net, "no-acpi": self._no_acpi,
            "object": self._object, "no-reboot": self._no_reboot, "pflash": self._flash, "usbdevice": self._usb_device,
        }  # fmt: skip
        if option.name in SHORT:
            self._drives.add_short(option.name, option.value)
        elif option.name in readers:
            readers[option.name](option)
        elif option.name in ("parallel", "snapshot", "chardev", "audiodev", "overcommit"):
            self._plain(option)
        elif option.name not in _LEFT_OUT:
            self._past += option.words
        self._kvm = self._kvm or option.name == "enable-kvm"

    def _plain(self, option: Option) -> None:
        """Options that are left out where they say what a machine has anyway."""
        if option.name == "snapshot":
            raise refused("-snapshot", "write snapshot=on for each -drive")
        found = Properties(option.name, option.value, "backend")
        is_left_out = {
            "parallel": option.value == "none",
            "chardev": found.take("id") in _OWN_SOCKETS,
            "audiodev": "none" in (found.take("driver"), found.take("backend")),
            "overcommit": option.value == "mem-lock=off",
        }
        if not is_left_out[option.name]:
            self._past += option.words

    def _name(self, option: Option) -> None:
        found = Properties("name", option.value, "guest")
        self._domain.name = found.take("guest") or "unnamed"
        found.ignore("process", "debug-threads")
        found.end()

    def _machine(self, option: Option) -> None:
        found = Properties("machine", option.value, "type")
        self._os.type.machine = found.take("type") or self._os.type.machine
        self._use(found.take("accel"))
        self._features.vmport = found.flag("vmport")
        smm = found.flag("smm")
        self._features.smm = SystemManagement(state=smm) if smm is not None else None
        self._features.acpi = found.flag("acpi") is not False
        self._own_memory = found.take("memory-backend") or self._own_memory
        chip = found.take("kernel_irqchip", "kernel-irqchip")
        self._features.ioapic = {"split": "qemu", "on": "kvm"}.get(chip or "")
        self._is_on_serial = found.flag("graphics") is False
        found.ignore(*_MACHINE_ANYWAY)
        found.end()

    def _object(self, option: Option) -> None:
        if not self._memories.add(option):
            self._past += option.words

    def _accel(self, option: Option) -> None:
        found = Properties("accel", option.value, "accel")
        self._use(found.take("accel"))
        ring, cache = found.number("dirty-ring-size"), found.number("tb-size", low=1)
        if ring:
            self._features.kvm = self._features.kvm or Kvm()
            self._features.kvm.dirty_ring = DirtyRing(state=True, size=ring)
        if cache is not None:
            self._features.tcg = Tcg(tb_cache=TranslationCache(unit="MiB", value=cache))
        found.end()

    def _use(self, name: str | None) -> None:
        """How the guest is run: the first of several ways that is there, which for QEMU's list is KVM."""
        ways = (name or "").split(":")
        for way in ways:
            if way not in ("", "kvm", "tcg"):
                raise refused("-accel", f"accel='{way}'; write kvm or tcg")
        self._kvm = self._kvm or ways[0] == "kvm"

    def _cpu(self, option: Option) -> None:
        read_cpu(self._domain, self._features, option)

    def _smp(self, option: Option) -> None:
        read_smp(self._domain, option)

    def _memory(self, option: Option) -> None:
        found = Properties("m", option.value, "size")
        text = found.needed("size")
        found.end()
        try:
            size = parse_size(text, default_suffix="M")
        except (ValueError, OverflowError) as error:
            raise refused("-m", str(error)) from None
        self._domain.memory = Memory(unit="KiB", value=-(-size // _KIB))

    def _uuid(self, option: Option) -> None:
        self._domain.uuid = option.value

    def _boot(self, option: Option) -> None:
        self._past += read_boot(self._os, option)

    def _clock(self, option: Option) -> None:
        found = Properties("rtc", option.value)
        base = found.take("base") or "utc"
        if base not in ("utc", "localtime"):
            raise refused("-rtc", f"base='{base}': write utc or localtime")
        self._set_clock(base)
        if found.take("clock") not in (None, "host") or found.take("driftfix") not in (None, "none"):
            self._past += option.words
        found.end()

    def _local_time(self, option: Option) -> None:
        self._set_clock("localtime")

    def _set_clock(self, offset: str) -> None:
        timers = self._domain.clock.timers if self._domain.clock is not None else []
        self._domain.clock = Clock(offset=offset, timers=timers)

    def _vnc(self, option: Option) -> None:
        found = Properties("vnc", option.value, "vnc")
        place = found.needed("vnc")
        if place == "none":
            return
        graphics = Graphics(type=GraphicsType.VNC)
        if place.startswith("unix:"):
            graphics.listens = [Listen(type="socket", socket=place.removeprefix("unix:"))]
        else:
            host, _, number = place.rpartition(":")
            graphics.port = _VNC_PORT + whole_number("-vnc", number, 0, 65535 - _VNC_PORT)
            graphics.autoport = False
            graphics.listens = [Listen(type="address", address=host.strip("[]") or "0.0.0.0")]
        graphics.share_policy = found.take("share")
        found.end()
        self._domain.devices.graphics.append(graphics)

    def _video(self, option: Option) -> None:
        if option.value == "none":
            self._domain.devices.videos = [Video(model=VideoModel(type="none"))]
        elif option.value in _VIDEOS:
            self._domain.devices.videos = [Video(model=VideoModel(type=_VIDEOS[option.value]))]
        else:
            self._past += option.words

    def _serial(self, option: Option) -> None:
        kind, _, rest = option.value.partition(":")
        serials = self._domain.devices.serials
        if option.value == "none":
            return
        if option.value in ("pty", "stdio", "mon:stdio", "vc"):
            serials.append(Serial(type=CharacterType.PTY))
        elif option.value == "null":
            serials.append(Serial(type=CharacterType.NULL))
        elif kind in ("file", "pipe"):
            serials.append(Serial(type=CharacterType(kind), sources=[CharacterSource(path=rest)]))
        elif kind == "unix" and rest.partition(",")[0]:
            path, *words = rest.split(",")
            is_server = any(word in ("server", "server=on") for word in words)
            source = CharacterSource(mode="bind" if is_server else "connect", path=path)
            serials.append(Serial(type=CharacterType.UNIX, sources=[source]))
        else:
            self._past += option.words

    def _kernel(self, option: Option) -> None:
        names = {"kernel": "kernel", "initrd": "initrd", "append": "cmdline", "dtb": "dtb"}
        setattr(self._os, names[option.name], option.value)

    def _bios(self, option: Option) -> None:
        if not option.value.startswith("/"):
            self._past += option.words
            return
        self._os.loader = Loader(type="rom", path=option.value)

    def _drive(self, option: Option) -> None:
        if Properties("drive", option.value, "file").all().get("if") == "mtd":
            self._past += option.words  # a document has no such disks
            return
        self._drives.add(Properties("drive", option.value, "file"))

    def _flash(self, option: Option) -> None:
        self._drives.add(Properties.of("pflash", {"if": "pflash", "file": option.value, "format": "raw"}))

    def _node(self, option: Option) -> None:
        found = Properties("blockdev", option.value, "driver")
        self._drives.nodes.add(found, found.all())

    def _device(self, option: Option) -> None:
        found = Properties("device", option.value, "driver")
        driver = found.needed("driver")
        if self._drives.has(driver):
            self._drives.add_device(driver, found)
        elif self._networks.has(driver):
            self._networks.add_device(driver, found)
        elif driver in _USB:
            ports, again = found.number("p2"), found.number("p3")
            found.ignore("id")
            usb = Controller(type=ControllerType.USB, model=_USB[driver], ports=ports or again)
            usb.address = pci_place(found)
            found.end()
            usb.index = sum(item.type == ControllerType.USB for item in self._drives.controllers)
            self._drives.controllers.append(usb)
        elif driver == "virtio-balloon-pci" and not found.all().keys() - {"id", "bus", "addr"}:
            self._domain.devices.memballoon = MemoryBalloon(model="virtio", address=pci_place(found))
        elif driver in _INPUTS and not found.all().keys() - {"id"}:
            self._domain.devices.inputs.append(Input(type=_INPUTS[driver], bus="usb"))
        else:
            self._past += option.words

    def _usb_device(self, option: Option) -> None:
        kind = {"tablet": "tablet", "mouse": "mouse", "keyboard": "keyboard"}.get(option.value)
        if kind is None:
            self._past += option.words
        else:
            self._domain.devices.inputs.append(Input(type=kind, bus="usb"))

    def _netdev(self, option: Option) -> None:
        self._networks.add_netdev(Properties("netdev", option.value, "type"))

    def _nic(self, option: Option) -> None:
        self._networks.add_nic(Properties("nic", option.value, "type"))

    def _net(self, option: Option) -> None:
        self._networks.add_net(Properties("net", option.value, "type"))

    def _no_acpi(self, option: Option) -> None:
        self._features.acpi = False

    def _no_reboot(self, option: Option) -> None:
        self._domain.on_reboot = "destroy"

    def _add_defaults(self) -> None:
        """What QEMU plugs in where nobody says otherwise."""
        if "nodefaults" in self._names:
            return
        if not self._networks.is_said:
            self._networks.add_default()
        devices = self._domain.devices
        if not devices.videos and "vga" not in self._names and "nographic" not in self._names:
            devices.videos = [Video(model=VideoModel(type="vga"))]
        if "nographic" in self._names and "serial" not in self._names:
            devices.serials = [Serial(type=CharacterType.PTY)]
