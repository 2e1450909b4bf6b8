"""Who makes the host's end of an interface."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hostel.drivers.link import tap
from hostel.drivers.qemu import document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command.machine import build
from hostel.drivers.qemu.wiring import Wiring
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain
from support.arguments import CONTEXT, spec, text
from support.domain import QEMU


def interface(kind: str, body: str = "") -> Interface:
    return Interface.parse(f"<interface type='{kind}'>{body}</interface>")


@pytest.mark.parametrize(
    ("kind", "is_ours"),
    [("bridge", True), ("direct", True), ("network", False), ("user", False), ("ethernet", False), ("mcast", False)],
)
def test_who_may_makes_what_is_behind_a_bridge_or_a_macvtap(kind: str, is_ours: bool) -> None:
    # A network that nothing can be plugged into is none of the host's.
    assert Wiring(None, is_allowed=lambda: True).makes(interface(kind)) is is_ours
    assert not Wiring(None, is_allowed=lambda: False).makes(interface(kind))


@pytest.mark.parametrize(
    ("kind", "body", "code", "words"),
    [("bridge", "<bandwidth><inbound average='1'/></bandwidth>", ErrorCode.OPERATION_UNSUPPORTED, "in session mode"),
     ("bridge", "<port isolated='yes'/>", ErrorCode.CONFIG_UNSUPPORTED, "use qemu:///system"),
     ("bridge", "<backend tap='/dev/tun2'/>", ErrorCode.CONFIG_UNSUPPORTED, "cannot use custom tap device in session")],
)  # fmt: skip
def test_who_may_not_is_told_what_needs_privileges(kind: str, body: str, code: ErrorCode, words: str) -> None:
    with pytest.raises(VirtError, match=words) as caught:
        Wiring(None, is_allowed=lambda: False).makes(interface(kind, body))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "body", ["<bandwidth><inbound average='1'/></bandwidth>", "<port isolated='yes'/>", "<backend tap='/t'/>"]
)
def test_what_cannot_be_kept_is_not_promised(body: str) -> None:
    with pytest.raises(VirtError):
        Wiring(None, is_allowed=lambda: True).makes(interface("user", body))


@pytest.mark.parametrize(
    ("kind", "more", "code", "words"),
    [
        ("802.1Qbg", "managerid='1' typeid='2' typeidversion='3'", ErrorCode.SYSTEM_ERROR,
         "Error opening file /var/run/lldpad.pid: lldpad.* does not run: No such file or directory"),
        ("802.1Qbh", "profileid='p'", ErrorCode.CONFIG_UNSUPPORTED,
         "the card's driver is not given the port's profile .*; leave <virtualport> out"),
    ],
)  # fmt: skip
@pytest.mark.skipif(Path("/var/run/lldpad.pid").exists(), reason="lldpad runs here")
def test_a_port_that_no_switch_is_asked_for_is_refused(kind: str, more: str, code: ErrorCode, words: str) -> None:
    port = f"<virtualport type='{kind}'><parameters {more}/></virtualport>"
    wanted = interface("direct", f"<source dev='eth0' mode='vepa'/>{port}<target dev='t'/>")
    domain = Domain.parse("<domain type='qemu'><name>g</name><memory>1</memory><os><type>hvm</type></os></domain>")
    with pytest.raises(VirtError, match=words) as caught:
        Wiring._open_direct(domain, wanted, wanted, 1)
    assert caught.value.code == code


def test_vhost_of_another_name_is_opened_and_one_that_is_demanded_is_missed() -> None:
    backend = "<model type='virtio'/><driver name='{}'/><backend vhost='{}'/>"
    opened = Wiring._vhosts(interface("bridge", backend.format("vhost", "/dev/null")), 2)
    try:
        assert [os.readlink(f"/proc/self/fd/{file}") for file in opened] == ["/dev/null", "/dev/null"]
    finally:
        tap.close(opened)
    with pytest.raises(VirtError, match="vhost-net was requested for an interface, but is unavailable"):
        Wiring._vhosts(interface("bridge", backend.format("vhost", "/dev/no-vhost")), 1)


def test_a_card_that_stands_in_for_another_says_so() -> None:
    card = "<interface type='user'><model type='virtio'/><teaming type='persistent'/></interface>"
    domain = document.parse(text(card), QEMU)
    assign_aliases(domain)
    assert spec(build(domain, CONTEXT), "-device", id="net0")["failover"] is True
