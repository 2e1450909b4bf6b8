"""The six steps, each a few commands that a user could type."""

from __future__ import annotations

import json
from typing import Any, Final

from hostel.cli.quickstart.machine import DISK, NAME, SIZE, Machine
from hostel.cli.quickstart.narrator import Narrator, StepFailed
from hostel.cli.quickstart.place import Place
from hostel.units import format_size

POOL: Final = "quick"
BASE: Final = "pool/base.qcow2"
COPY: Final = "pool/copy.qcow2"
SNAPSHOT: Final = "first-boot"
STEPS: Final = 6


def run(say: Narrator, place: Place, machine: Machine) -> None:
    """Take all steps.

    Raises:
        StepFailed: one did not do what it shows.
    """
    fill_pool(say, place)
    lay_overlay(say)
    say.step("Make a machine that boots from the overlay" + _honest(machine))
    machine.install()
    say.run("virsh", *_uri(machine), "list")
    say.run("virsh", *_uri(machine), "domblklist", NAME)
    say.step("Hear the guest: it reads and writes its disk, and counts its boots there" + _honest(machine))
    machine.witness(1)
    go_back(say, machine)
    judge(say, machine)


def _honest(machine: Machine) -> str:
    return "" if machine.is_real else "  (NOT REAL: no QEMU)"


def _uri(machine: Machine) -> tuple[str, ...]:
    return () if machine.is_real else ("-c", "test:///default")


def fill_pool(say: Narrator, place: Place) -> None:
    """Make a pool, and in it a volume with the built-in guest."""
    say.step("Make a storage pool, a disk image in it, and put the built-in guest on the disk")
    say.run("virsh", "pool-define-as", POOL, "dir", "--target", str(place.pool))
    say.run("virsh", "pool-build", POOL)
    say.run("virsh", "pool-start", POOL)
    say.run("virsh", "vol-create-as", POOL, "base.qcow2", str(SIZE), "--format", "qcow2")
    say.run("guest", "write", "-f", "qcow2", "--label", NAME, "--mode", "wait", BASE)


def lay_overlay(say: Narrator) -> None:
    """Make an overlay, and show what it stands on."""
    say.step("Lay an overlay on it: what the machine writes goes there, and the base stays as it is")
    say.run("qemu-img", "create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", DISK)
    say.run("virsh", "pool-refresh", POOL)
    layers = json.loads(say.answer("qemu-img", "info", "--backing-chain", "--output=json", DISK))
    for line in tree(layers):
        say.note(line)
    recorded = (layers[0].get("backing-filename"), layers[0].get("backing-filename-format"))
    if recorded != ("base.qcow2", "qcow2"):
        raise StepFailed(f"{DISK} records {recorded} as its backing file and format")


def tree(layers: list[dict[str, Any]]) -> list[str]:
    """Draw a backing chain, top first, with the sizes that a guest sees and that the host holds."""
    names = [f"{'    ' * (depth - 1)}└── " * (depth > 0) + layer["filename"] for depth, layer in enumerate(layers)]
    width = max(map(len, names))
    return [
        f"{name:<{width}}  {layer['format']}, {format_size(layer['virtual-size'])}, "
        f"{format_size(layer['actual-size'])} on the host"
        for name, layer in zip(names, layers, strict=True)
    ]


def go_back(say: Narrator, machine: Machine) -> None:
    """Snapshot, boot, revert, boot."""
    say.step("Take a snapshot, boot again, go back to the snapshot, boot again" + _honest(machine))
    machine.stop()
    say.run("qemu-img", "snapshot", "-c", SNAPSHOT, DISK)
    machine.start()
    machine.witness(2)
    machine.stop()
    say.run("qemu-img", "snapshot", "-l", DISK)
    say.run("qemu-img", "snapshot", "-a", SNAPSHOT, DISK)
    say.run("guest", "count", "-f", "qcow2", DISK)
    machine.start()
    machine.witness(2)
    say.note("2 again and not 3: the disk had gone back to the first boot")
    machine.stop()


def judge(say: Narrator, machine: Machine) -> None:
    """Check the image, and a compressed copy of it."""
    say.step("Check the image, copy it compressed, and compare the two")
    say.run("qemu-img", "check", DISK)
    progress = ("-p",) if say.on_terminal else ()
    say.run("qemu-img", "convert", *progress, "-c", "-O", "qcow2", DISK, COPY)
    say.run("qemu-img", "compare", DISK, COPY)
    say.run("virsh", "pool-refresh", POOL)
    say.run("virsh", "vol-list", POOL, "--details")
    say.run("virsh", *_uri(machine), "list", "--all")
