"""QEMU's command line of a document, which nobody starts: ``domxml-to-native qemu-argv``."""

from __future__ import annotations

import shlex
from typing import Final

from hostel.drivers.native import NativeCalls
from hostel.drivers.qemu.calls import Calls
from hostel.errors import VirtError
from hostel.model.domain.devices.interface import InterfaceType
from hostel.model.domain.domain import Domain

ARGUMENTS: Final = "qemu-argv"


class ArgumentCalls(Calls, NativeCalls):
    """The native formats of every connection, and QEMU's own."""

    def connect_domain_xml_to_native(self, native_format: str, domain_xml: str) -> str:
        """A configuration of a document; in ``qemu-argv``, as a line for a shell.

        Raises:
            VirtError: in libvirt's words, with what in the document is wrong, or cannot be said.
        """
        from hostel.drivers.qemu import document
        from hostel.drivers.qemu.alias import assign_aliases
        from hostel.drivers.qemu.architecture import find_emulator
        from hostel.drivers.qemu.command.context import Context
        from hostel.drivers.qemu.command.host import large_pages
        from hostel.drivers.qemu.command.machine import build
        from hostel.drivers.qemu.command.support import SAID
        from hostel.drivers.qemu.source import translate

        if native_format != ARGUMENTS:
            return super().connect_domain_xml_to_native(native_format, domain_xml)
        domain = document.parse_stored(domain_xml)
        platform = self._launcher.finish(domain)
        document.check_startable(domain, platform)
        self._launcher.choose_firmware(domain)
        for disk in domain.devices.disks:
            translate(disk, self._storage)
        self._connect(domain)
        assign_aliases(domain)
        from hostel.drivers.host.smbios import host_sysinfo

        settings = self._launcher.settings()
        run = self._machines.log(domain.name).with_suffix("")
        context = Context(
            find_emulator(domain), run / "monitor", self._launcher.bridge,
            pages=large_pages(only=settings.hugetlbfs), is_confined=True, smbios=host_sysinfo,
            certificates=self._launcher.certificates(), settings=settings,
        )  # fmt: skip
        return shlex.join(build(domain, context, SAID))

    def _connect(self, domain: Domain) -> None:
        """Make of interfaces what a command line can connect: those that libvirt would open itself become taps.

        The scripts are those that QEMU runs by itself.
        """
        for interface in domain.devices.interfaces:
            if interface.type == InterfaceType.NETWORK and interface.source is not None:
                try:
                    self._launcher.bridge(interface.source.network or "")
                    continue
                except VirtError:
                    interface.type = InterfaceType.ETHERNET
            elif interface.type == InterfaceType.DIRECT:
                interface.type = InterfaceType.ETHERNET
            else:
                continue
            interface.source, interface.target = None, None
            interface.script, interface.downscript = "/etc/qemu-ifup", "/etc/qemu-ifdown"
