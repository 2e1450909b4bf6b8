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
from hostel.model.network_port import NetworkPort, read_network_port
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
