"""One section of a network's document is added, changed or deleted, or the update is refused and nothing changes."""

from __future__ import annotations

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.network import Network
from hostel.model.network_defaults import read_network
from hostel.model.network_update import Command, Section, update

NETWORK = """
<network>
  <name>n</name>
  <forward mode='nat'><interface dev='eth0'/></forward>
  <ip address='192.168.1.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.1.10' end='192.168.1.20'/>
      <host mac='52:54:00:00:00:01' name='one' ip='192.168.1.11'/>
      <host mac='52:54:00:00:00:02' name='two' ip='192.168.1.12'/>
    </dhcp>
  </ip>
  <ip family='ipv6' address='2001:db8::1' prefix='64'/>
  <ip address='10.0.0.1' prefix='8'/>
  <dns>
    <txt name='a' value='x'/>
    <srv service='s' protocol='tcp' domain='d' target='t' port='1'/>
    <srv service='s' protocol='tcp' domain='e' target='t' port='1'/>
    <host ip='192.168.1.2'><hostname>h</hostname><hostname>g</hostname></host>
    <host ip='192.168.1.3'><hostname>h</hostname></host>
  </dns>
  <portgroup name='p' default='yes'/>
</network>
"""
HOST, RANGE, GROUP = Section.IP_DHCP_HOST, Section.IP_DHCP_RANGE, Section.PORTGROUP
LAST, FIRST, MODIFY, DELETE = Command.ADD_LAST, Command.ADD_FIRST, Command.MODIFY, Command.DELETE


def network() -> Network:
    return read_network(NETWORK)


def hosts(network: Network, ip: int = 0) -> list[str | None]:
    dhcp = network.ips[ip].dhcp
    return [host.ip for host in dhcp.hosts] if dhcp is not None else []


@pytest.mark.parametrize(
    ("command", "xml", "expected"),
    [
        (LAST, "<host mac='52:54:00:00:00:03' ip='192.168.1.13'/>", ["11", "12", "13"]),
        (FIRST, "<host name='three' ip='192.168.1.13'/>", ["13", "11", "12"]),
        (MODIFY, "<host mac='52:54:0:0:0:2' ip='192.168.1.99'/>", ["11", "99"]),
        (DELETE, "<host mac='52:54:00:00:00:01'/>", ["12"]),
        (DELETE, "<host ip='192.168.1.12'/>", ["11"]),
        (DELETE, "<host name='one' ip='192.168.1.11'/>", ["12"]),
    ],
)
def test_a_host_is_added_changed_or_deleted(command: Command, xml: str, expected: list[str]) -> None:
    changed = network()
    update(changed, command, HOST, -1, xml)
    assert hosts(changed) == [f"192.168.1.{end}" for end in expected]


def test_the_address_may_be_named_by_its_place() -> None:
    changed = network()
    update(changed, LAST, HOST, 1, "<host id='0:1' ip='2001:db8::5'/>")
    assert hosts(changed, 1) == ["2001:db8::5"]


def test_ranges_are_added_and_deleted() -> None:
    changed = network()
    update(changed, FIRST, RANGE, 0, "<range start='192.168.1.30' end='192.168.1.40'/>")
    update(changed, DELETE, RANGE, 0, "<range start='192.168.1.10' end='192.168.1.20'/>")
    dhcp = changed.ips[0].dhcp
    assert dhcp is not None
    assert [range.start for range in dhcp.ranges] == ["192.168.1.30"]


def test_the_first_interface_is_the_one_of_the_forwarding() -> None:
    changed = network()
    update(changed, FIRST, Section.FORWARD_INTERFACE, -1, "<interface dev='eth1'/>")
    assert changed.forward is not None
    assert changed.forward.dev == "eth1"
    for name in ("eth0", "eth1"):
        update(changed, DELETE, Section.FORWARD_INTERFACE, -1, f"<interface dev='{name}'/>")
    assert changed.forward.dev is None


def test_port_groups_are_added_changed_and_deleted() -> None:
    changed = network()
    update(changed, LAST, GROUP, -1, "<portgroup name='q' trustGuestRxFilters='yes'/>")
    update(changed, MODIFY, GROUP, -1, "<portgroup name='p'/>")
    update(changed, MODIFY, GROUP, -1, "<portgroup name='q' default='yes'/>")
    update(changed, DELETE, GROUP, -1, "<portgroup name='p'/>")
    assert [(group.name, group.is_default) for group in changed.portgroups] == [("q", True)]


def test_records_are_added_and_deleted() -> None:
    changed = network()
    update(changed, LAST, Section.DNS_TXT, -1, "<txt name='b' value='y'/>")
    update(changed, DELETE, Section.DNS_TXT, -1, "<txt name='a'/>")
    update(changed, DELETE, Section.DNS_SRV, -1, "<srv service='s' protocol='tcp' domain='d'/>")
    update(changed, LAST, Section.DNS_HOST, -1, "<host ip='192.168.1.4'><hostname>h</hostname></host>")
    update(changed, DELETE, Section.DNS_HOST, -1, "<host><hostname>g</hostname></host>")
    assert changed.dns is not None
    assert [text.name for text in changed.dns.texts] == ["b"]
    assert [service.domain for service in changed.dns.services] == ["e"]
    assert [host.ip for host in changed.dns.hosts] == ["192.168.1.3", "192.168.1.4"]


UNSUPPORTED, INVALID, XML = ErrorCode.OPERATION_UNSUPPORTED, ErrorCode.OPERATION_INVALID, ErrorCode.XML_ERROR
REFUSED = [
    (LAST, Section.BRIDGE, -1, "<bridge/>", UNSUPPORTED, "can't update 'bridge' section of network 'n'"),
    (LAST, HOST, -1, "<range/>", XML, "while updating network 'n'"),
    (LAST, HOST, 3, "<host name='a' ip='192.168.1.50'/>", INVALID, "no <ip> element found at index 3"),
    (LAST, HOST, 0, "<host name='one' ip='192.168.1.50'/>", INVALID, "there is an existing dhcp host entry"),
    (LAST, HOST, 0, "<host id='a' ip='2001:db8::1'/>", XML, "in IPv4 network"),
    (LAST, HOST, 2, "<host name='a' ip='10.0.0.5'/>", INVALID, "only for a single IPv4 address"),
    (MODIFY, HOST, 0, "<host name='a' ip='192.168.1.50'/>", INVALID, "couldn't locate an existing dhcp host entry"),
    (DELETE, HOST, 0, "<host name='a'/>", INVALID, "couldn't locate a matching dhcp host entry"),
    (DELETE, HOST, 0, "<host mac='52:54:00:00:00:01' name='two'/>", INVALID, "couldn't locate a matching"),
    (MODIFY, RANGE, 0, "<range start='192.168.1.10' end='192.168.1.20'/>", UNSUPPORTED, "cannot be modified"),
    (LAST, RANGE, 0, "<range start='192.168.1.10' end='192.168.1.20'/>", INVALID, "there is an existing dhcp range"),
    (LAST, RANGE, 0, "<range start='192.168.2.1' end='192.168.2.2'/>", ErrorCode.INTERNAL_ERROR, "not entirely within"),
    (DELETE, RANGE, 0, "<range start='192.168.1.1' end='192.168.1.2'/>", INVALID, "couldn't locate a matching dhcp ra"),
    (MODIFY, Section.FORWARD_INTERFACE, -1, "<interface dev='eth0'/>", UNSUPPORTED, "cannot be modified"),
    (LAST, Section.FORWARD_INTERFACE, -1, "<interface dev='eth0'/>", INVALID, "there is an existing interface entry"),
    (DELETE, Section.FORWARD_INTERFACE, -1, "<interface dev='eth9'/>", INVALID, "couldn't find an interface entry"),
    (LAST, GROUP, -1, "<portgroup name='p'/>", INVALID, "there is an existing portgroup entry"),
    (LAST, GROUP, -1, "<portgroup name='q' default='yes'/>", INVALID, "already set as the default"),
    (MODIFY, GROUP, -1, "<portgroup name='q'/>", INVALID, "couldn't find a portgroup entry"),
    (LAST, Section.DNS_TXT, -1, "<txt name='a' value='y'/>", INVALID, "there is already a DNS TXT record with"),
    (MODIFY, Section.DNS_TXT, -1, "<txt name='a' value='y'/>", UNSUPPORTED, "cannot be modified"),
    (DELETE, Section.DNS_TXT, -1, "<txt name='b'/>", INVALID, "couldn't locate a matching DNS TXT record"),
    (MODIFY, Section.DNS_SRV, -1, "<srv service='s' protocol='tcp'/>", UNSUPPORTED, "cannot be modified"),
    (DELETE, Section.DNS_SRV, -1, "<srv service='s' protocol='tcp'/>", INVALID, "multiple matching DNS SRV records"),
    (MODIFY, Section.DNS_HOST, -1, "<host/>", UNSUPPORTED, "cannot be modified"),
    (DELETE, Section.DNS_HOST, -1, "<host><hostname>h</hostname></host>", INVALID, "multiple matching DNS HOST rec"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "section", "parent", "xml", "code", "reason"), REFUSED)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    command: Command, section: Section, parent: int, xml: str, code: ErrorCode, reason: str
) -> None:
    kept = network()
    before = kept.format()
    with pytest.raises(ModelError, match=reason.replace("(", r"\(")) as raised:
        update(kept, command, section, parent, xml)
    assert raised.value.code is code
    assert kept.format() == before


def test_there_is_no_place_for_an_interface_or_a_host_where_there_is_no_such_part() -> None:
    bare = read_network("<network><name>n</name></network>")
    with pytest.raises(ModelError, match="does not forward"):
        update(bare, LAST, Section.FORWARD_INTERFACE, -1, "<interface dev='eth1'/>")
    with pytest.raises(ModelError, match="no <ip> element found in network 'n'"):
        update(bare, LAST, HOST, -1, "<host name='a' ip='192.168.1.50'/>")


def test_an_interface_in_use_stays() -> None:
    used = network()
    assert used.forward is not None
    used.forward.interfaces[0].connections = 2
    with pytest.raises(ModelError, match="currently being used  by 2 domains"):
        update(used, DELETE, Section.FORWARD_INTERFACE, -1, "<interface dev='eth0'/>")
