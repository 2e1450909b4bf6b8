"""QEMU's command line beside the one of a real libvirtd: the guest sees the same machine."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.drivers.qemu import document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command.context import Context
from hostel.drivers.qemu.command.machine import build
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from support import libvirtd, machines
from support.domain import CASES, GOLDEN, QEMU
from support.libvirtd import Libvirtd

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]

# What makes the guest's machine. Not compared: block nodes and back ends, whose names are each program's own; VNC,
# whose port we leave to QEMU; memory, which libvirt gives as an object; and libvirt's own channels and secrets.
OPTIONS = ("-accel", "-audiodev", "-cpu", "-device", "-global", "-rtc", "-smp", "-watchdog-action")
OWN_NAMES = re.compile(r"^(hostel|libvirt)-\d+(-\d+)?-format$")
MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
CONTEXT = Context("/usr/bin/qemu-system-x86_64", Path("/run/monitor"), lambda _: None)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        yield daemon


def machine(argv: list[str]) -> list[str]:
    """The options that make the guest's machine, each as one line."""
    lines: list[str] = []
    for option, value in itertools.pairwise(argv):
        if option not in OPTIONS:
            continue
        if option == "-rtc":
            value = re.sub(rf"(?<=^base=){MOMENT}", "a moment", value)
        if value.startswith("{"):
            found = json.loads(value)
            if OWN_NAMES.match(str(found.get("drive"))):
                found["drive"] = "its node"
            if found["driver"] == "vhost-vsock-pci":  # whose descriptor nobody opens for a line
                found.pop("vhostfd", None)
            if found["driver"] in ("isa-parallel", "isa-fdc"):  # we say what QEMU would choose: the number, an id
                found.pop("index", None)
                found.pop("id", None)
            value = json.dumps(found, sort_keys=True)
        if option == "-smp":
            value = value.replace(",dies=1", "")
        lines.append(f"{option} {value}")
    return sorted(lines)


def clock(argv: list[str]) -> str:
    """The moment at which the guest's clock begins, if it is said; such words sort as the moments do."""
    options = dict(itertools.pairwise(argv))
    said = re.match(rf"base=({MOMENT})", options.get("-rtc", ""))
    return said[1] if said else ""


def without_interfaces(xml: str) -> str:
    """Leave out what virsh makes taps of, for which it needs rights."""
    return re.sub(r"<interface.*?</interface>", "", xml, flags=re.DOTALL)


def built(domain: Domain) -> list[str] | VirtError:
    try:
        return build(domain, CONTEXT)
    except VirtError as error:
        return error


def compare(daemon: Libvirtd, xml: str, directory: Path) -> None:
    domain = document.parse(xml, QEMU)
    path = directory / "domain.xml"
    path.write_text(domain.format())
    assign_aliases(domain)
    before = built(domain)
    answer = daemon.virsh("domxml-to-native", "qemu-argv", str(path), check=False)
    if answer.returncode:
        pytest.skip(answer.stderr.strip())
    if isinstance(before, VirtError):
        assert "is not supported by this driver" in before.message
        pytest.skip(before.message)
    theirs, after = shlex.split(answer.stdout), build(domain, CONTEXT)
    assert machine(after) == machine(theirs)
    # A clock that runs beside the host's is said as of now: libvirt was asked between our two answers.
    assert clock(before) <= clock(theirs) <= clock(after)


@pytest.mark.parametrize("case", CASES)
def test_guest_sees_the_machine_that_libvirt_gives_it(daemon: Libvirtd, case: str, tmp_path: Path) -> None:
    compare(daemon, without_interfaces((GOLDEN / f"{case}.xml").read_text()), tmp_path)


@pytest.mark.requires_tool("qemu-img")
@pytest.mark.parametrize("name", machines.MACHINES)
def test_guest_sees_every_device_as_libvirt_gives_it(daemon: Libvirtd, name: str, tmp_path: Path) -> None:
    compare(daemon, machines.machine(name, tmp_path, interfaces=False), tmp_path)
