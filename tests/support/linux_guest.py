"""Debian's kernel with busybox as a domain of the driver: what a script finds out inside the guest."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

from hostel.drivers.base import DomainRef, DomainState, StartFlag
from hostel.drivers.qemu.driver import QemuDriver
from support.linux import BEGIN, END, Linux

_COMMAND: Final = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable"


class LinuxGuest:
    """A guest that runs one script when it starts, and switches itself off.

    Args:
        driver: the driver.
        linux: the kernel.
        home: where its files are.
    """

    def __init__(self, driver: QemuDriver, linux: Linux, home: Path) -> None:
        self._driver = driver
        self._linux = linux
        self._home = home

    def define(
        self, script: str, devices: str = "", *, body: str = "", modules: tuple[str, ...] = (), memory: int = 256
    ) -> DomainRef:
        """Define it; ``body`` goes beside ``<devices>``."""
        initrd = self._home / "initrd"
        initrd.write_bytes(self._linux.initramfs(script, {}, modules))
        boot = f"<kernel>{self._linux.kernel.image}</kernel><initrd>{initrd}</initrd><cmdline>{_COMMAND}</cmdline>"
        features = "" if "<features>" in body else "<features><acpi/></features>"
        cpu = "" if "<cpu" in body else "<cpu mode='maximum'/>"
        return self._driver.domain_define_xml(
            f"<domain type='qemu'><name>linux</name><memory unit='MiB'>{memory}</memory>"
            f"<os><type machine='q35'>hvm</type>{boot}</os>{features}{cpu}{body}<devices>{devices}"
            f"<serial type='pty'><log file='{self._home}/serial' append='off'/></serial></devices></domain>"
        )

    def run(self, domain: DomainRef) -> str:
        """Start it, wait until it has ended, and return what the script printed."""
        return self.wait(self._driver.domain_create(domain, StartFlag.NONE))

    def wait(self, domain: DomainRef, timeout: float = 120) -> str:
        """Wait until it has ended; what the script printed."""
        deadline = time.monotonic() + timeout
        while self._driver.domain_get_state(domain).state is not DomainState.SHUTOFF:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        match = re.search(f"{BEGIN}\n(.*?){END}(\\d+)", self.said(), re.DOTALL)
        assert match is not None, self.said()
        assert match[2] == "0", match[1]
        return match[1]

    def wait_for(self, text: str, timeout: float = 90) -> None:
        """Wait until it has printed something."""
        deadline = time.monotonic() + timeout
        while text not in self.said():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def said(self) -> str:
        """What came over the serial port so far."""
        path = self._home / "serial"
        return path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n") if path.exists() else ""
