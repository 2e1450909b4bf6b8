"""Questions to guests that have no agent, through our virsh beside real virsh and a real libvirtd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import libvirtd
from support.virsh import Ours, Real

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("libvirtd"),
]
XML = """<domain type='qemu'><name>{name}</name><memory>16384</memory>
<vcpu>2</vcpu><os><type machine='pc'>hvm</type></os>
<devices><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
LINES = (
    "domhostname {}", "domhostname {} --source x", "domfsinfo {}", "guestinfo {} --os", "guestvcpus {}",
    "guestvcpus {} --enable", "guestvcpus {} 1", "guestvcpus {} 1 --disable", "guestvcpus {} x --disable", "domtime {}",
    "domtime {} --now --sync", "domtime {} --time x", "get-user-sshkeys {} root", "set-user-sshkeys {} root",
    "set-user-sshkeys {} root --remove", "set-user-password {} root x", "guest-agent-timeout {} --timeout 5",
    "guest-agent-timeout {} --timeout -5", "guest-agent-timeout {} --timeout x", "dompmsuspend {} mem",
    "dompmsuspend {} x", "dompmwakeup {}", "vcpucount {} --guest", "setvcpus {} 1 --guest",
    "setvcpus {} 1 --guest --config", "setvcpu {} 1", "setvcpu {} 1 --enable --disable", "setvcpu {} x --enable",
    "setvcpu {} 5 --enable", "setvcpu {} 1 --enable", "setvcpu {} 0 --disable", "setvcpu {} 0-1 --disable",
    "domsetlaunchsecstate {}", "domsetlaunchsecstate {} --secret /dev/null --secrethdr /dev/null",
    "domlaunchsecinfo {}", "setvcpu {} --enable", "setvcpu {} 1 --disable --live",
)  # fmt: skip
ADVICE = "; start qemu-guest-agent in the guest"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ours, Real]]:
    home: Path = tmp_path_factory.mktemp("home")
    with libvirtd.running() as daemon:
        daemon.skip_unless_recorded()
        found = Ours(home), Real(daemon.uri)
        for name in ("off", "on"):
            (home / f"{name}.xml").write_text(XML.format(name=name))
        try:
            for virsh in found:
                assert virsh.run(f"define {home}/off.xml")[0] == 0
                assert virsh.run(f"create {home}/on.xml")[0] == 0
            yield found
        finally:
            for virsh in found:
                virsh.run("destroy on")


@pytest.mark.parametrize("name", ["on", "off", "none"])
def test_refusals_are_virshs(pair: tuple[Ours, Real], name: str) -> None:
    for line in LINES:
        ours, theirs = (virsh.run(line.format(name)) for virsh in pair)
        assert (*ours[:2], ours[2].replace(ADVICE, "")) == theirs, line
