"""Who makes the host's end of an interface."""

from __future__ import annotations

import pytest

from hostel.drivers.qemu.wiring import Wiring
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.devices.interface import Interface


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
     ("bridge", "<port isolated='yes'/>", ErrorCode.CONFIG_UNSUPPORTED, "use qemu:///system")],
)  # fmt: skip
def test_who_may_not_is_told_what_needs_privileges(kind: str, body: str, code: ErrorCode, words: str) -> None:
    with pytest.raises(VirtError, match=words) as caught:
        Wiring(None, is_allowed=lambda: False).makes(interface(kind, body))
    assert caught.value.code == code


@pytest.mark.parametrize("body", ["<bandwidth><inbound average='1'/></bandwidth>", "<port isolated='yes'/>"])
def test_what_cannot_be_kept_is_not_promised(body: str) -> None:
    with pytest.raises(VirtError):
        Wiring(None, is_allowed=lambda: True).makes(interface("user", body))
