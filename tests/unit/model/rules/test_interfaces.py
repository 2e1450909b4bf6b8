"""Network interfaces that the rules refuse."""

from __future__ import annotations

import pytest

from support.refused import document
from support.rules import ARGUMENT, DETAIL, INTERNAL, XML, Refused, card, check_not_started, check_refused

REFUSED: dict[str, Refused] = {
    "server without a port": Refused(
        "<interface type='server'><source address='127.0.0.1'/></interface>",
        "/domain/devices/interface[1]/source", "Missing required attribute 'port' in element 'source'", XML,
        only_given=True,
    ),
    "client without a port": Refused(
        "<interface type='client'><source address='127.0.0.1'/></interface>",
        "/domain/devices/interface[1]/source", "Missing required attribute 'port' in element 'source'", XML,
        only_given=True,
    ),
    "vhost-user without a mode": Refused(
        "<interface type='vhostuser'><source type='unix' path='/s'/><model type='virtio'/></interface>",
        "/domain/devices/interface[1]/source", "Missing required attribute 'mode' in element 'source'", XML,
        only_given=True,
    ),
    "tunnel without a near end": Refused(
        "<interface type='udp'><source address='127.0.0.1' port='1'/></interface>",
        "/domain/devices/interface[1]/source/local", "'<local>' element missing for 'udp' socket interface", XML,
        only_given=True,
    ),
    "tunnel without a near port": Refused(
        "<interface type='udp'><source address='127.0.0.1' port='1'><local address='127.0.0.1'/></source></interface>",
        "/domain/devices/interface[1]/source/local", "Missing required attribute 'port' in element 'local'", XML,
        only_given=True,
    ),
    "model that is a path": Refused(
        "<interface type='user'><model type='../x'/></interface>", "/domain/devices/interface[1]/model/@type",
        "Model name contains invalid characters", ARGUMENT, only_given=True,
    ),
    "pages of an e1000": Refused(
        document("<interface type='user'><model type='e1000'/><driver page_per_vq='on'/></interface>"),
        "/domain/devices/interface[1]/driver/@page_per_vq", "page_per_vq option is only supported for virtio devices",
    ),
    "host's route of no network": Refused(
        document(
            "<interface type='ethernet'><source><route address='6.1.1.1' gateway='6.1.1.2'/></source></interface>"
        ),
        "/domain/devices/interface/source/route/@address",
        "interface host IP: Address '6.1.1.1' in route definition is not a network address", XML,
    ),
    "address that is none": Refused(
        document("<interface type='user'><ip address='10.1.1.999'/></interface>"),
        "/domain/devices/interface/ip/@address", "Invalid address '10.1.1.999' in <ip>", XML,
    ),
    "address of the other family": Refused(
        document("<interface type='user'><ip family='ipv6' address='10.1.1.9'/></interface>"),
        "/domain/devices/interface/ip/@address", "Invalid address '10.1.1.9' in <ip>", XML,
    ),
    "prefix beyond an address": Refused(
        document("<interface type='user'><ip address='10.1.1.9' prefix='33'/></interface>"),
        "/domain/devices/interface/ip/@prefix", "Invalid prefix value '33' in <ip>", XML,
    ),
    "peer of the other family": Refused(
        document("<interface type='user'><ip address='10.1.1.9' peer='::1'/></interface>"),
        "/domain/devices/interface/ip/@peer", "Invalid peer '::1' in <ip>", ARGUMENT,
    ),
    "rate of nothing": Refused(
        document("<interface type='user'><bandwidth><inbound/></bandwidth></interface>"),
        "/domain/devices/interface[1]/bandwidth/inbound", "Missing mandatory average or floor attributes", DETAIL,
    ),
    "interface that is unassigned": Refused(
        document("<interface type='user'><address type='unassigned'/></interface>"),
        "/domain/devices/interface[1]/address/@type", "address of type 'unassigned' is supported only for hostdevs",
    ),
    "host's card elsewhere": Refused(
        document(
            "<interface type='hostdev'><source><address type='pci' bus='1'/></source><address type='isa'/></interface>"
        ),
        "/domain/devices/interface[1]/address/@type", "PCI host devices must use 'pci' or 'unassigned' address type",
        INTERNAL,
    ),
    "ip of a bridge": Refused(
        card("bridge", "<ip address='1.2.3.4'/>"), "/domain/devices/interface[1]/ip",
        "Invalid attempt to set network interface guest-side IP route and/or address info",
    ),
    "vhost-user e1000": Refused(
        "<interface type='vhostuser'><source type='unix' path='/s' mode='client'/><model type='e1000'/></interface>",
        "/domain/devices/interface[1]/model/@type", "Wrong or no <model> 'type' attribute", INTERNAL,
    ),
    "odd queue": Refused(
        card("bridge", "<model type='virtio'/><driver rx_queue_size='300'/>"),
        "/domain/devices/interface[1]/driver/@rx_queue_size", "rx_queue_size has to be a power of two",
    ),
    "mtu of user": Refused(
        card("user", "<mtu size='1500'/>"), "/domain/devices/interface[1]/mtu",
        "setting MTU on interface type user is not supported yet",
    ),
    "multicast": Refused(
        card("user", "<mac address='01:00:00:00:00:01'/>"), "/domain/devices/interface[1]/mac/@address",
        "expected unicast mac address", XML,
    ),
    "virtual port of user": Refused(
        card("user", "<virtualport type='openvswitch'/>"), "/domain/devices/interface[1]/virtualport",
        "<virtualport> element unsupported for <interface type='user'>",
    ),
    "virtual port without a type": Refused(
        card("bridge", "<virtualport/>"), "/domain/devices/interface[1]/virtualport/@type",
        "missing required virtualport type", XML,
    ),
    "virtual port without what it needs": Refused(
        card("bridge", "<virtualport type='802.1Qbg'><parameters managerid='1'/></virtualport>"),
        "/domain/devices/interface[1]/virtualport/parameters/@typeid",
        "missing typeid in <virtualport type='802.1Qbg'>", XML,
    ),
    "two native vlans": Refused(
        card("bridge", "<vlan><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/></vlan>"),
        "/domain/devices/interface[1]/vlan", "duplicate native vlan setting", XML,
    ),
    "floor of a bridge": Refused(
        card("bridge", "<bandwidth><inbound average='5' floor='2'/></bandwidth>"),
        "/domain/devices/interface[1]/bandwidth/inbound/@floor",
        "floor attribute is not supported for this config",
    ),
    "user kept from others": Refused(
        card("user", "<mac address='52:54:00:00:00:01'/><port isolated='yes'/>"),
        "/domain/devices/interface[1]/port/@isolated",
        "interface 52:54:00:00:00:01 - <port isolated='yes'/> is not supported for network interfaces with type='user'",
    ),
    "passt of a bridge": Refused(
        card("bridge", "<backend type='passt'/>"), "/domain/devices/interface[1]/backend/@type",
        "The 'passt' backend can only be used with interface type='user'",
    ),
}  # fmt: skip

# These are defined, and do not start.
NOT_STARTED: dict[str, Refused] = {
    "queues of user": Refused(
        card("user", "<model type='virtio'/><driver queues='2'/>"), "/domain/devices/interface[1]/driver/@queues",
        "multiqueue is not supported for network interfaces of type user",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_document_is_refused_where_it_is_wrong(name: str) -> None:
    check_refused(REFUSED[name])


@pytest.mark.parametrize("name", NOT_STARTED)
def test_document_is_defined_and_does_not_start(name: str) -> None:
    check_not_started(NOT_STARTED[name])
