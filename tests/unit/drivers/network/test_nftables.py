"""A network's rules for nftables."""

from __future__ import annotations

import pytest

from hostel.drivers.network.nftables import families, ruleset
from hostel.errors import VirtError
from hostel.model.network_defaults import read_network

IP = "<ip address='192.168.1.1' prefix='24'/>"


def rules(body: str, bridge: str = "br-1") -> list[str]:
    """The rules alone, without what names their chain."""
    network = read_network(f"<network><name>n</name><bridge name='{bridge}'/>{body}</network>")
    return [" ".join(line.split()[5:]) for line in ruleset(network).splitlines() if line.startswith("add rule")]


def test_an_isolated_network_passes_nothing_on() -> None:
    assert rules(IP) == ['iifname "br-1" oifname "br-1" accept', 'oifname "br-1" reject', 'iifname "br-1" reject']


def test_a_routed_network_is_reached_from_outside() -> None:
    assert rules(f"<forward mode='route' dev='eth0'/>{IP}")[1:3] == [
        'ip daddr 192.168.1.0/24 iifname "eth0" oifname "br-1" accept',
        'oifname "br-1" reject',
    ]


def test_a_translated_network_has_answers_and_ports_of_its_own() -> None:
    found = rules(f"<forward><nat><port start='5000' end='6000'/></nat></forward>{IP}")
    assert 'ip daddr 192.168.1.0/24 oifname "br-1" ct state established,related accept' in found
    outside = "ip saddr 192.168.1.0/24 meta l4proto tcp ip daddr != 192.168.1.0/24"
    assert f"{outside} masquerade to :5000-6000" in found
    # What is never forwarded is looked at before what is translated.
    assert found[5:7] == [
        f"ip saddr 192.168.1.0/24 ip daddr {it} return" for it in ("224.0.0.0/24", "255.255.255.255/32")
    ]


def test_addresses_to_translate_to_may_be_given() -> None:
    found = rules(f"<forward><nat><address start='1.2.3.4' end='1.2.3.9'/></nat></forward>{IP}")
    assert found[-1] == "ip saddr 192.168.1.0/24 ip daddr != 192.168.1.0/24 snat to 1.2.3.4-1.2.3.9"


def test_an_open_network_has_no_rules() -> None:
    assert rules(f"<forward mode='open'/>{IP}") == []


def test_each_family_has_its_table() -> None:
    both = f"{IP}<ip family='ipv6' address='fd00::1' prefix='64'/>"
    network = read_network(f"<network><name>n</name><bridge name='b'/><forward/>{both}</network>")
    assert families(ruleset(network)) == {"ip", "ip6"}


@pytest.mark.parametrize("name", ['a"b', "a*", "-a", "a;b", "a{b"])
def test_a_bridge_whose_name_means_something_to_nft_is_refused(name: str) -> None:
    with pytest.raises(VirtError, match="cannot be written into rules"):
        rules(IP, name)
