"""Documents of networks and their updates, given to libvirtd and to us: what each says of them is the same."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import hosteld, libvirtd_system, netns
from support.virsh import real_lines

pytestmark = [
    pytest.mark.requires_tool("nft"),
    pytest.mark.requires_tool("dnsmasq"),
    pytest.mark.requires_tool("libvirtd"),
    pytest.mark.requires_tool("virsh"),
    pytest.mark.requires_tool("ip6tables"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a bridge is made by root"),
]
UUID = "7fb1b3c8-0dd5-4d36-8e6c-9f9b3d2a4b11"
B = "<bridge name='tb0'/><mac address='52:54:00:11:22:33'/>"
IP = "<ip address='192.168.77.1' prefix='24'/>"
HOST = "<host mac='52:54:00:00:00:0a' ip='192.168.77.10' name='a'><lease expiry='0'/></host>"
DHCP = (
    "<ip address='192.168.77.1' prefix='24'><dhcp><range start='192.168.77.20' end='192.168.77.40'>"
    f"<lease expiry='2' unit='hours'/></range>{HOST}</dhcp></ip>"
)
DHCP2 = "<ip address='10.77.0.1' netmask='255.255.0.0'><dhcp><range start='10.77.0.5' end='10.77.0.9'/></dhcp></ip>"
DHCP6 = (
    "<ip family='ipv6' address='fd00:77::1' prefix='64'><dhcp><range start='fd00:77::10' end='fd00:77::20'/>"
    "<host id='0:4:7e:7d:f0' name='p' ip='fd00:77::15'/></dhcp></ip>"
)
DNS = (
    "<dns forwardPlainNames='no'><forwarder addr='8.8.8.8'/><forwarder domain='x.com' addr='9.9.9.9'/>"
    "<forwarder domain='y.com'/><txt name='t' value='v'/><srv service='s' protocol='tcp' domain='d' target='t' "
    "port='1' priority='2' weight='3'/><host ip='192.168.77.5'><hostname>h</hostname></host></dns>"
)
NAT = "<nat><address start='1.2.3.4' end='1.2.3.10'/><port start='500' end='1000'/></nat>"
HOSTS = "<forward mode='bridge'/><bridge name='host0'/>"
VEPA = "<forward mode='vepa'><interface dev='lo'/></forward>"
RATE = "<bandwidth><inbound average='1'/></bandwidth>"
VLAN, OVS = "<vlan><tag id='5'/></vlan>", "<virtualport type='openvswitch'/>"
DOCUMENTS = {
    "nat": f"<forward mode='nat'>{NAT}</forward>{B}{IP}",
    "nat of ipv6": f"<forward mode='nat'><nat ipv6='yes'/></forward>{B}{IP}<ip family='ipv6' address='fd00:77::1'/>",
    "nat by one device": f"<forward mode='nat' dev='lo'/>{B}{IP}",
    "nat by two": f"<forward mode='nat'><interface dev='a'/><interface dev='b'/></forward>{B}{IP}",
    "ports in the wrong order": f"<forward mode='nat'><nat><port start='9' end='1'/></nat></forward>{B}{IP}",
    "route": f"<forward mode='route' dev='lo'/>{B}{IP}",
    "open": f"<forward mode='open'/>{B}{IP}",
    "open by one device": f"<forward mode='open' dev='lo'/>{B}{IP}",
    "isolated": f"{B}<port isolated='yes'/>{DHCP}",
    "names": f"{B}<domain name='d.test' localOnly='yes'/>{DNS}{IP}",
    "no names": f"{B}<dns enable='no'/>{DHCP}",
    "no address": f"{B}",
    "several addresses": f"{B}<mtu size='1400'/>{DHCP}<ip address='10.77.0.1' netmask='255.255.0.0'/>{DHCP6}",
    "two of dhcp": f"{B}{DHCP}{DHCP2}",
    "range outside": f"{B}{DHCP.replace('77.20', '78.20')}",
    "boot": B + DHCP.replace("<dhcp>", "<tftp root='/tmp'/><dhcp>").replace(HOST, "<bootp file='x'/>"),
    "reverse names": f"{B}<ip address='192.168.77.1' prefix='24' localPtr='yes'/>",
    "groups": f"{B}{IP}<portgroup name='a' default='yes'>{RATE}</portgroup><portgroup name='b'/>",
    "two default groups": f"{B}{IP}<portgroup name='a' default='yes'/><portgroup name='b' default='yes'/>",
    "groups of one name": f"{B}{IP}<portgroup name='a'/><portgroup name='a'/>",
    "multicast": f"<bridge name='tb0'/><mac address='01:54:00:11:22:33'/>{IP}",
    "vlan of nat": f"<forward mode='nat'/>{B}{IP}{VLAN}",
    "vlan of a bridge": f"{HOSTS}{VLAN}",
    "vlan of a switch": f"{HOSTS}{OVS}<vlan trunk='yes'><tag id='5'/><tag id='6' nativeMode='tagged'/></vlan>",
    "vlan of passthrough": f"<forward mode='passthrough'><interface dev='lo'/></forward>{VLAN}",
    "vlan of a group": f"{B}{IP}<portgroup name='a'>{VLAN}</portgroup>",
    "vlan of a switched group": f"{HOSTS}<portgroup name='a'>{VLAN}{OVS}</portgroup>",
    "vlan of a default group": f"{HOSTS}{VLAN}<portgroup name='a' default='yes'>{OVS}</portgroup>",
    "switch of nat": f"<forward mode='nat'/>{B}{IP}{OVS}",
    "bridge that is not there": "<forward mode='bridge'/><bridge name='nothere'/>",
    "bridge with an address": f"{HOSTS}{IP}",
    "bridge with a mac": f"{HOSTS}<mac address='52:54:00:11:22:33'/>",
    "bridge with names": f"{HOSTS}<dns><txt name='a' value='b'/></dns>",
    "bridge with a domain": f"{HOSTS}<domain name='a'/>",
    "private": "<forward mode='private' dev='lo'/>",
    "vepa": VEPA,
    "vepa with rates": f"{VEPA}{RATE}",
    "vepa with rates of a group": f"{VEPA}<portgroup name='a'>{RATE}</portgroup>",
    "device that is no function": "<forward mode='hostdev'><address type='pci' bus='0' slot='9'/></forward>",
    "card without functions": "<forward mode='hostdev' managed='yes'><pf dev='lo'/></forward>",
    "passthrough without functions": "<forward mode='passthrough'><pf dev='nothere'/></forward>",
    "hostdev by name": "<forward mode='hostdev'><interface dev='lo'/></forward>",
    "passthrough by address": "<forward mode='passthrough'><address type='pci' bus='0' slot='9'/></forward>",
}
UPDATED = f"<forward mode='nat'/>{B}{DHCP}"
LEASED = "<host mac='52:54:00:00:00:0b' ip='192.168.77.11' name='b'/>"
RANGE = "<range start='192.168.77.50' end='192.168.77.60'/>"
NAMED = "<host ip='192.168.77.6'><hostname>x</hostname></host>"
SERVICE = "<srv service='a' protocol='tcp' domain='d' target='t' port='1'/>"
UPDATES = [
    ("add ip-dhcp-host", LEASED), ("add ip-dhcp-host", LEASED),
    ("modify ip-dhcp-host", LEASED.replace("name='b'", "name='c'")),
    ("modify ip-dhcp-host", LEASED.replace("0b", "0f")),
    ("add ip-dhcp-host", "<host mac='nonsense' ip='1.1.1.1'/>"), ("add ip-dhcp-host", "<frob/>"),
    ("delete ip-dhcp-host", LEASED), ("delete ip-dhcp-host", LEASED),
    ("add ip-dhcp-range", RANGE), ("add ip-dhcp-range", RANGE), ("modify ip-dhcp-range", RANGE),
    ("delete ip-dhcp-range", RANGE), ("delete ip-dhcp-range", RANGE),
    ("add portgroup", f"<portgroup name='z'>{RATE}</portgroup>"), ("add portgroup", "<portgroup name='z'/>"),
    ("modify portgroup", "<portgroup name='z' default='yes'/>"), ("modify portgroup", "<portgroup name='y'/>"),
    ("delete portgroup", "<portgroup name='z'/>"), ("delete portgroup", "<portgroup name='z'/>"),
    ("add dns-host", NAMED), ("add dns-host", NAMED), ("modify dns-host", NAMED),
    ("delete dns-host", "<host ip='192.168.77.6'/>"), ("delete dns-host", "<host ip='192.168.77.99'/>"),
    ("add dns-txt", "<txt name='q' value='w'/>"), ("add dns-txt", "<txt name='q' value='v'/>"),
    ("modify dns-txt", "<txt name='q' value='v'/>"), ("delete dns-txt", "<txt name='q'/>"),
    ("add dns-srv", SERVICE), ("add dns-srv", SERVICE), ("modify dns-srv", SERVICE),
    ("delete dns-srv", "<srv service='a' protocol='tcp'/>"), ("delete dns-srv", "<srv service='a' protocol='udp'/>"),
    ("add forward-interface", "<interface dev='lo'/>"), ("delete forward-interface", "<interface dev='lo'/>"),
    ("modify forward-interface", "<interface dev='lo'/>"), ("add bridge", "<bridge name='x'/>"),
    ("modify domain", "<domain name='x'/>"), ("add ip", "<ip address='1.1.1.1'/>"), ("modify forward", "<forward/>"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hostel-nets-") as path:
        for number, body in enumerate([*DOCUMENTS.values(), UPDATED]):
            xml = f"<network><name>n</name><uuid>{UUID}</uuid>{body}</network>"
            (Path(path) / f"{number}.xml").write_text(xml)
        (Path(path) / "same.xml").write_text("<network><name>same</name><bridge name='tb0'/></network>")
        for number, (_, xml) in enumerate(UPDATES):
            (Path(path) / f"update{number}.xml").write_text(xml)
        yield Path(path)


def lines(folder: Path) -> list[str]:
    found = []
    for number in range(len(DOCUMENTS)):
        found += [f"net-define {folder}/{number}.xml", "net-start n", "net-dumpxml n", "net-dumpxml n --inactive"]
        found += ["net-info n", "net-destroy n", "net-undefine n"]
    found += [f"net-define {folder}/{len(DOCUMENTS)}.xml", "net-start n"]
    found += [f"net-{how} {folder}/same.xml" for how in ("define", "create")]
    for number, (what, _) in enumerate(UPDATES):
        found.append(f"net-update n {what} {folder}/update{number}.xml --live --config")
        if number % 4 == 0:
            found += ["net-dumpxml n", "net-dumpxml n --inactive"]
    found += ["net-autostart n", "net-info n", "net-undefine n", "net-info n", "net-autostart n", "net-destroy n"]
    return [*found, "net-info n"]


def answers(uri: str, folder: Path) -> list[tuple[str, str, str]]:
    """What is said to each line, but for hardware addresses that were made up."""
    subprocess.run(["ip", "link", "add", "host0", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", "host0", "up"], check=True)
    said = lines(folder)
    told = [
        re.sub(r"52:54:00(?!:00:00:0|:11:22:33)(:[0-9a-f]{2}){3}", "MAC", "\0".join(t)) for t in real_lines(uri, said)
    ]
    assert len(told) == len(said)
    return [(line, *text.split("\0")) for line, text in zip(said, told, strict=True)]  # type: ignore[misc]


def libvirts(folder: Path) -> list[tuple[str, str, str]]:
    with netns.alone(), libvirtd_system.running(drivers=("network", "storage", "secret", "qemu")) as uri:
        return answers(uri, folder)


def hostels(folder: Path) -> list[tuple[str, str, str]]:
    with netns.alone(), hosteld.process() as daemon:
        return answers(daemon.uri("qemu:///system"), folder)


def test_networks_are_taken_refused_and_changed_as_by_libvirt(folder: Path) -> None:
    with ThreadPoolExecutor() as pool:  # each thread has a network of its own
        theirs, ours = (told.result() for told in [pool.submit(libvirts, folder), pool.submit(hostels, folder)])
    different = [(one, two) for one, two in zip(theirs, ours, strict=True) if one != two]
    assert not different, "\n".join(f"{one[0]}\n  {one[1:]}\n  {two[1:]}" for one, two in different)
    assert sum("error" in text for _, _, text in theirs) > len(DOCUMENTS)
