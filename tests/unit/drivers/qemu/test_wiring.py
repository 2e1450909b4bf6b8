"""Who makes the host's end of an interface."""

from __future__ import annotations

import os

import pytest

from hostel.drivers.link import tap
from hostel.drivers.qemu import document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command.machine import build
from hostel.drivers.qemu.wiring import Wiring
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.interface import Interface
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
