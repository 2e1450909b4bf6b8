"""The documents of interfaces that go into a bridge and come out of it."""

from __future__ import annotations

import pytest

from hostel.cli.virsh.bridging import bridged, unbridged
from hostel.cli.virsh.session import CommandError
from hostel.model.interface import read_interface

CARD = (
    "<interface type='ethernet' name='eth7'><start mode='onboot'/><mac address='52:54:00:11:22:33'/>"
    "<protocol family='ipv4'><ip address='10.0.0.2' prefix='24'/></protocol></interface>"
)


def test_an_interface_goes_into_a_bridge_with_what_is_its_own_and_comes_out_as_it_was() -> None:
    made = bridged(CARD, "eth7", "br7", stp=True, delay=3)
    assert "<protocol" in made.partition("<bridge")[0]
    assert '<bridge stp="on" delay="3"><interface type="ethernet" name="eth7"><mac address=' in made
    around = read_interface(made)
    assert (around.type, around.name) == ("bridge", "br7")
    back = unbridged(made, "br7")
    assert back.name == "eth7"
    assert read_interface(back.xml).format() == read_interface(CARD).format()
    assert "delay" not in bridged(CARD, "eth7", "br7", stp=False, delay=3)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<interface type='bridge' name='br7'><bridge/></interface>", "No interface attached to bridge"),
        ("<interface type='bridge' name='br7'/>", "No bridge node in xml document"),
        (
            "<interface type='bridge' name='br7'><bridge><interface/><interface/></bridge></interface>",
            "Multiple interfaces attached to bridge",
        ),
        ("<interface type='bridge' name='br7'><bridge><interface/></bridge></interface>", "has no name"),
        ("<interface type='bridge' name='br8'><bridge/></interface>", "doesn't match given supplied name br7"),
        ("<interface type='ethernet' name='br7'/>", "Device br7 is not a bridge"),
        ("<interface name='br7'/>", "has no type"),
        ("<interface", "Failed to parse configuration of br7"),
    ],
)
def test_what_is_no_bridge_with_one_interface_stays(xml: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        unbridged(xml, "br7")


def test_a_bridge_goes_into_no_other() -> None:
    with pytest.raises(CommandError, match="already a bridge"):
        bridged("<interface type='bridge' name='br7'/>", "br7", "br8", stp=True, delay=0)
