"""What ``mdevctl`` is told of mediated devices, and what it says; libvirt's own cases are in ``make libvirt-data``."""

from __future__ import annotations

import json

import pytest

from hostel.drivers.nodedev import mdevctl
from hostel.errors import ModelError, VirtError
from hostel.model.node_device import NodeDevice, read_node_device

UUID = "d069d019-36ea-4111-8f0a-8c9a70e21366"


def device(body: str = f"<uuid>{UUID}</uuid>") -> NodeDevice:
    capability = f"<capability type='mdev'><type id='t'/>{body}</capability>"
    return read_node_device(f"<device><parent>p</parent>{capability}</device>", is_new=True)


def test_a_new_device_is_told_on_standard_input() -> None:
    new = device("<attr name='a' value='1'/><attr name='a' value='\"é'/>")
    assert mdevctl.new_command("define", new, "0000:00:02.0") == [
        "mdevctl", "define", "--parent=0000:00:02.0", "--jsonfile=/dev/stdin",
    ]  # fmt: skip
    assert mdevctl.configuration(new, autostart=True) == (
        '{"mdev_type":"t","start":"auto","attrs":[{"a":"1"},{"a":"\\"é"}]}'
    )


def test_a_known_device_is_named_by_its_uuid() -> None:
    assert mdevctl.known_command("stop", device()) == ["mdevctl", "stop", f"--uuid={UUID}"]
    assert mdevctl.autostart_command(device(), autostart=False)[-2:] == [UUID, "--manual"]
    with pytest.raises(ModelError, match="has no UUID"):
        mdevctl.known_command("stop", device(""))


def test_other_devices_are_not_mediated() -> None:
    net = read_node_device(
        "<device><name>n</name><capability type='net'><interface>e</interface></capability></device>"
    )
    with pytest.raises(ModelError, match="Unsupported device type"):
        mdevctl.mediated(net)


def listed(properties: object, uuid: str = UUID) -> str:
    return json.dumps([{"0000:00:02.0": [{uuid: properties}]}])


def test_what_is_kept_has_its_parent_where_that_is_there() -> None:
    output = listed({"mdev_type": "t", "start": "auto", "attrs": [{"a": "1"}]})
    ((found, autostart),) = mdevctl.read_list(output, {"0000:00:02.0": "pci_0000_00_02_0"}.get)
    assert autostart
    assert found.name == f"mdev_{UUID.replace('-', '_')}_0000_00_02_0"
    assert found.parent is not None and found.parent.name == "pci_0000_00_02_0"
    told = "    <parent_addr>0000:00:02.0</parent_addr>\n"  # and not taken from a document
    assert told in found.format()
    assert read_node_device(found.format()).format() == found.format().replace(told, "")
    ((alone, _),) = mdevctl.read_list(output, lambda address: None)
    assert alone.parent is not None and alone.parent.name == "computer"


def test_nothing_is_kept() -> None:
    assert mdevctl.read_list("[]", lambda address: None) == []


@pytest.mark.parametrize(
    "output",
    ["", "no such command", "{}", "1", "[1]", "[{}, {}]", '[{"p": 1}]', '[{"p": [1]}]', '[{"p": [{}]}]', "[" * 100000,
     '[{"p": [{"a": 1, "b": 2}]}]', listed(1), listed({}), listed({"mdev_type": 1}),
     listed({"mdev_type": "t", "attrs": 1}), listed({"mdev_type": "t", "attrs": [1]}),
     listed({"mdev_type": "t", "attrs": [{}]}), listed({"mdev_type": "t", "attrs": [{"a": 1}]}),
     listed({"mdev_type": "t", "attrs": [{"a": "1", "b": "2"}]})],
)  # fmt: skip
def test_what_is_no_list_is_refused(output: str) -> None:
    with pytest.raises(VirtError):
        mdevctl.read_list(output, lambda address: None)
