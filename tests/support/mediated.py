"""A host with a card on which mediated devices can be made: files below a folder, and a thread that is its kernel.

Real ``mdevctl`` works on ``/sys`` and ``/etc/mdevctl.d``: :meth:`MediatedHost.command` has it see the folder's there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from support.sysfs import Host, furnish

PARENT = "pci_0000_01_00_0"
ADDRESS = "0000:01:00.0"
KIND = "i915-V5"
_CARD = "pci0000:00/0000:00:01.0/0000:01:00.0"
_POLL = 0.01  # seconds


class MediatedHost:
    """The folder, and what the kernel does in it."""

    def __init__(self, root: Path) -> None:
        self.host: Host = furnish(root)
        self.root = root
        self.definitions = root / "etc/mdevctl.d"
        scripts = [self.definitions / "scripts.d" / name for name in ("callouts", "notifiers")]
        for path in (*scripts, root / "dev/vfio", root / "sys/class/mdev_bus"):
            path.mkdir(parents=True)
        card = root / "sys/devices" / _CARD
        (root / "sys/class/mdev_bus" / ADDRESS).symlink_to(os.path.relpath(card, root / "sys/class/mdev_bus"))
        self._create = card / "mdev_supported_types" / KIND / "create"
        self._create.touch()
        self._made: list[Path] = []

    def command(self, words: list[str]) -> list[str]:
        """What runs a command that takes this host for its own; root alone may do so."""
        mounts = f'mount --rbind "{self.root}/sys" /sys && mount --bind "{self.definitions}" /etc/mdevctl.d'
        return ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *words]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The kernel answers within the block."""
        stop = threading.Event()

        def serve() -> None:
            while not stop.wait(_POLL):
                self._look()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _look(self) -> None:
        uuid = self._create.read_text().strip()
        if uuid:
            self._create.write_text("")
            self.make(uuid)
        for path in list(self._made):
            if (path / "remove").read_text().strip() == "1":
                (self.root / "sys/bus/mdev/devices" / path.name).unlink()
                shutil.rmtree(path)
                self._made.remove(path)

    def make(self, uuid: str) -> None:
        """Let a device appear, as if somebody else had made it."""
        folder = self.root / "sys/devices" / _CARD / uuid
        folder.mkdir()
        (folder / "uevent").write_text("")
        (folder / "remove").write_text("")
        (folder / "mdev_type").symlink_to(f"../mdev_supported_types/{KIND}")
        group = self.root / "sys/kernel/iommu_groups/9"
        group.mkdir(parents=True, exist_ok=True)
        (folder / "iommu_group").symlink_to(os.path.relpath(group, folder))
        self._made.append(folder)
        devices = self.root / "sys/bus/mdev/devices"
        (devices / uuid).symlink_to(os.path.relpath(folder, devices))
