"""Damaged documents beside the domain's: refused with one clean error, or read, written and read again."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from hostel.codec.xml import Element
from hostel.drivers.network.dnsmasq import configuration, hosts_file, names_file
from hostel.drivers.network.iptables import commands
from hostel.drivers.nwfilter import commands as filters
from hostel.drivers.nwfilter.instance import instances
from hostel.drivers.storage.backends.command import activate_command, mount_command
from hostel.errors import ModelError
from hostel.model.backup import Backup, read_backup
from hostel.model.network import Network
from hostel.model.network_defaults import read_network
from hostel.model.network_port import NetworkPort, read_network_port
from hostel.model.network_update import Command, Section, update
from hostel.model.nwfilter.binding import FilterBinding, read_binding
from hostel.model.nwfilter.filter import Filter, read_filter
from hostel.model.storage import Pool, PoolType
from support.damaged import damaged
from support.documents import KINDS, Reader
from support.tally import tried

__all__ = ["tried"]

SOAK = int(os.environ.get("HOSTEL_SOAK", "1"))
GOLDEN = Path(__file__).parents[1] / "golden"


UUID = "<uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid>"
BACKUP = """<domainbackup mode='pull'><incremental>c</incremental><server transport='tcp' name='h' port='1'/><disks>
<disk name='vda' backup='yes' type='file' backupmode='incremental' incremental='c' exportname='e' exportbitmap='b'>
<driver type='qcow2'/><scratch file='/s'/></disk><disk name='vdb' backup='no'/></disks></domainbackup>"""
PORT = f"""<networkport>{UUID}<owner><name>d</name>{UUID}</owner><group>g</group><mac address='52:54:00:00:00:01'/>
<bandwidth><inbound average='1' peak='2' burst='3' floor='4'/><outbound average='1'/></bandwidth>
<vlan trunk='yes'><tag id='1' nativeMode='tagged'/><tag id='2'/></vlan><port isolated='yes'/>
<virtualport type='802.1Qbg'><parameters managerid='1' typeid='2' typeidversion='1'/></virtualport>
<rxfilters trustGuest='yes'/><plug type='hostdev-pci' managed='yes'><driver name='vfio'/>
<address domain='0x0001' bus='0x02' slot='0x03' function='0x4'/></plug></networkport>"""
BINDING = f"""<filterbinding><owner><name>d</name>{UUID}</owner><portdev name='p'/><linkdev name='l'/>
<mac address='52:54:00:00:00:01'/><filterref filter='f'><parameter name='A' value='1'/></filterref></filterbinding>"""
INNER = read_filter("<filter name='inner'><rule action='drop' direction='in'><tcp srcportstart='$A'/></rule></filter>")
VARIABLES = {"MAC": ["52:54:00:00:00:01"], "IP": ["10.0.0.1"], "A": ["1", "2"], "B": ["3"]}
SEEDS: dict[str, tuple[type[Element], Reader, list[str]]] = {
    **{
        kind: (cls, read, [path.read_text() for path in sorted((GOLDEN / kind).glob("*.xml"))])
        for kind, (cls, read) in KINDS.items()
    },
    "backup": (Backup, read_backup, [BACKUP]),
    "networkport": (NetworkPort, read_network_port, [PORT]),
    "filterbinding": (FilterBinding, read_binding, [BINDING]),
}


def use(kind: str, xml: str) -> bool:
    """Read a document and do with it what drivers do; says whether it was read at all."""
    cls, read, _ = SEEDS[kind]
    try:
        document = read(xml)
    except ModelError:
        return False
    text = document.format()
    again = read(text).format()
    # Of what is repeated without a declaration, each reading may drop one.
    assert again == text or list(cls.parse(xml).unknown_paths()), "it does not settle"
    try:
        if isinstance(document, Network):
            lines = [configuration(document, "/run"), hosts_file(document), names_file(document)]
            assert all("\r" not in part for part in lines)
            commands(document)
        elif isinstance(document, Filter):
            filters.commands("vnet0", instances(document, VARIABLES, lambda name: INNER))
        elif isinstance(document, Pool) and document.type in (PoolType.FS, PoolType.NETFS):
            mount_command(document)
        elif isinstance(document, Pool) and document.type is PoolType.LOGICAL:
            activate_command(document, active=True)
    except ModelError:
        pass
    return True


@pytest.mark.parametrize("part", range(2 * SOAK))
@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_documents_are_refused_cleanly_or_used(kind: str, part: int, tried: Counter[str]) -> None:
    documents = SEEDS[kind][2]
    rng = random.Random(f"{kind} {part}")
    count = 250
    for _ in range(count):
        xml = damaged(rng.choice(documents), documents, rng)
        try:
            use(kind, xml)
        except BaseException as error:
            error.add_note(xml)
            raise
    tried["damaged documents"] += count


SECTIONS = {
    Section.IP_DHCP_HOST: "<host mac='52:54:00:00:00:01' name='one' ip='192.168.1.11'><lease expiry='5'/></host>",
    Section.IP_DHCP_RANGE: "<range start='192.168.1.30' end='192.168.1.40'><lease expiry='5' unit='hours'/></range>",
    Section.FORWARD_INTERFACE: "<interface dev='eth1'/>",
    Section.PORTGROUP: "<portgroup name='q' default='yes'><bandwidth><inbound average='1'/></bandwidth></portgroup>",
    Section.DNS_HOST: "<host ip='192.168.1.4'><hostname>h</hostname><hostname>g</hostname></host>",
    Section.DNS_TXT: "<txt name='b' value='y'/>",
    Section.DNS_SRV: "<srv service='s' protocol='tcp' domain='d' target='t' port='1' priority='2' weight='3'/>",
}
CHANGED = """<network><name>n</name><forward mode='nat'><interface dev='eth0'/></forward>
<ip address='192.168.1.1' prefix='24'><dhcp><range start='192.168.1.10' end='192.168.1.20'/>
<host mac='52:54:00:00:00:01' name='one' ip='192.168.1.11'/></dhcp></ip>
<ip family='ipv6' address='2001:db8::1' prefix='64'/>
<dns><txt name='b' value='x'/><srv service='s' protocol='tcp'/>
<host ip='192.168.1.4'><hostname>h</hostname></host></dns>
<portgroup name='p'/></network>"""


@pytest.mark.parametrize("part", range(2 * SOAK))
def test_damaged_sections_of_a_network_are_refused_or_make_one_that_settles(part: int, tried: Counter[str]) -> None:
    rng = random.Random(f"section {part}")
    count = 1000
    for _ in range(count):
        section = rng.choice(list(SECTIONS))
        xml, command = damaged(SECTIONS[section], list(SECTIONS.values()), rng), rng.choice(list(Command))
        network = read_network(CHANGED)
        try:
            update(network, command, section, rng.choice((-1, -1, 0, 1, 7)), xml)
            text = network.format()
            again = read_network(text)
            assert again.format() == text or list(network.unknown_paths())
        except ModelError:
            pass
        except BaseException as error:
            error.add_note(f"{command} {section} {xml}")
            raise
    tried["damaged sections"] += count
