"""The documents by which a guest's interface is plugged into a network, and has a filter."""

from __future__ import annotations

import pytest

from hostel.errors import ModelError
from hostel.model.network_port import read_network_port
from hostel.model.nwfilter.binding import read_binding

UUID = "<uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>"
OWNER = f"<owner><name>d</name>{UUID}</owner>"
MAC = "<mac address='52:54:00:0:0:1'/>"
PORT = f"{UUID}{OWNER}{MAC}"
REFERENCE = "<filterref filter='f'><parameter name='B' value='2'/><parameter name='A' value='1'/></filterref>"
DEVICE = "<portdev name='vnet0'/>"


def port(body: str) -> str:
    return read_network_port(f"<networkport>{body}</networkport>").format()


def binding(body: str) -> str:
    return read_binding(f"<filterbinding>{body}</filterbinding>").format()


@pytest.mark.parametrize(
    ("plug", "written"),
    [("<plug type='none'/>", ""),
     ("<plug type='network' bridge='b' dev='e' mode='vepa'/>", "<plug type='network' bridge='b'/>"),
     ("<plug type='bridge' bridge='b' macTableManager='libvirt'/>",
      "<plug type='bridge' bridge='b' macTableManager='libvirt'/>"),
     ("<plug type='direct' dev='e' bridge='b'/>", "<plug type='direct' dev='e' mode='vepa'/>"),
     ("<plug type='hostdev-pci' managed='yes'><driver name='vfio'/><address bus='0x1' slot='0x2'/></plug>",
      "<plug type='hostdev-pci' managed='yes'>")],
)  # fmt: skip
def test_a_plug_has_what_its_type_has(plug: str, written: str) -> None:
    text = port(PORT + plug)
    assert written in text if written else "plug" not in text
    assert read_network_port(text).format() == text
    assert "<mac address='52:54:00:00:00:01'/>" in text


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [("", "/networkport/uuid", "no uuid"),
     (UUID, "/networkport/owner/name", "no owner name"),
     (f"{UUID}<owner><name>d</name></owner>", "/networkport/owner/uuid", "no owner UUID"),
     (UUID + OWNER, "/networkport/mac", "no mac"),
     (f"{UUID}{OWNER}<mac address='nothing'/>", "/networkport/mac/@address", "Unable to parse MAC"),
     (f"{PORT}<plug type='network'/>", "/networkport/plug/@bridge", "Missing network port bridge name"),
     (f"{PORT}<plug type='direct'/>", "/networkport/plug/@dev", "Missing network port link device name"),
     (f"{PORT}<plug type='hostdev-pci'/>", "/networkport/plug/address", "Missing network port PCI address"),
     (f"{PORT}<plug type='other'/>", "/networkport/plug/@type", "other")],
)  # fmt: skip
def test_a_wrong_port_is_refused_where_it_is_wrong(body: str, path: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as raised:
        port(body)
    assert raised.value.path == path


def test_a_binding_has_its_parameters_in_order() -> None:
    text = binding(OWNER + DEVICE + MAC + REFERENCE)
    assert "<mac address='52:54:00:00:00:01'/>" in text
    assert text.index("name='A'") < text.index("name='B'")
    assert read_binding(text).format() == text


@pytest.mark.parametrize(
    ("body", "path"),
    [(OWNER + MAC + REFERENCE, "/filterbinding/portdev"),
     (DEVICE + MAC + REFERENCE, "/filterbinding/owner/name"),
     (f"<owner><name>d</name></owner>{DEVICE}{MAC}{REFERENCE}", "/filterbinding/owner/uuid"),
     (OWNER + DEVICE + REFERENCE, "/filterbinding/mac"),
     (OWNER + DEVICE + MAC, "/filterbinding/filterref"),
     (f"{OWNER}{DEVICE}<mac address='52'/>{REFERENCE}", "/filterbinding/mac/@address"),
     (f"{OWNER}{DEVICE}{MAC}<filterref/>", "/filterbinding/filterref/@filter")],
)  # fmt: skip
def test_a_wrong_binding_is_refused_where_it_is_wrong(body: str, path: str) -> None:
    with pytest.raises(ModelError) as raised:
        binding(body)
    assert raised.value.path == path
