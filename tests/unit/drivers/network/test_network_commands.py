"""What dnsmasq and iptables are told of a network."""

from __future__ import annotations

import pytest

from hostel.drivers.network.dnsmasq import configuration, hosts_file, names_file
from hostel.drivers.network.iptables import commands
from hostel.errors import ModelError
from hostel.model.network import Network
from hostel.model.network_defaults import read_network


def network(body: str, head: str = "<bridge name='br'/>") -> Network:
    return read_network(f"<network><name>n</name>{head}{body}</network>")


IPV4 = """<ip address='192.168.1.1' prefix='24' {attributes}><dhcp>
  <range start='192.168.1.10' end='192.168.1.20'><lease expiry='2' unit='hours'/></range>
  <host mac='52:54:00:00:00:01' name='one' ip='192.168.1.11'><lease expiry='0'/></host>
  <host name='two' ip='192.168.1.12'/>
  <bootp file='boot' server='192.168.1.9'/>
</dhcp></ip>"""
IPV6 = """<ip family='ipv6' address='2001:db8::1' prefix='64'><dhcp>
  <host id='0:1' name='six' ip='2001:db8::6'/>
</dhcp></ip>"""


FORWARDED = "<forward/><ip address='192.168.1.1' prefix='24'/>"


def lines(network: Network) -> list[str]:
    comment, *rest = configuration(network, "/run").splitlines()
    assert comment.startswith("# ")
    return rest


def test_addresses_are_given_out_for_a_time() -> None:
    found = lines(network(IPV4.format(attributes="")))
    assert "dhcp-range=192.168.1.10,192.168.1.20,255.255.255.0,2h" in found
    assert "dhcp-lease-max=11" in found
    assert "dhcp-boot=boot,,192.168.1.9" in found
    assert "dhcp-hostsfile=/run/n.hostsfile" in found
    assert "addn-hosts=/run/n.addnhosts" in found


def test_certain_guests_have_their_addresses() -> None:
    assert hosts_file(network(IPV4.format(attributes="") + IPV6)).splitlines() == [
        "52:54:00:00:00:01,192.168.1.11,one,infinite",
        "two,192.168.1.12",
        "id:0:1,six,[2001:db8::6]",
    ]


def test_certain_addresses_have_their_names() -> None:
    named = network("<dns><host ip='192.168.1.2'><hostname>a</hostname><hostname>b</hostname></host></dns>")
    assert names_file(named) == "192.168.1.2\ta\tb\n"
    assert names_file(network("")) == hosts_file(network("")) == ""


def test_an_isolated_network_leads_nowhere() -> None:
    alone = ["dhcp-option=3", "no-resolv", "ra-param=*,0,0"]
    assert all(line in lines(network("")) for line in alone)
    assert not any(line in lines(network(FORWARDED)) for line in alone)


def test_no_names_are_served_where_that_is_off() -> None:
    found = lines(network("<dns enable='no'/><ip address='192.168.1.1' prefix='24'/>"))
    assert "port=0" in found
    assert not any(line.startswith("addn-hosts") for line in found)


@pytest.mark.parametrize(
    ("attributes", "domain"),
    [("family='ipv4' address='10.1.2.3' prefix='16'", "1.10.in-addr.arpa"),
     ("family='ipv6' address='2001:db8::1' prefix='32'", "8.b.d.0.1.0.0.2.ip6.arpa")],
)  # fmt: skip
def test_names_of_own_addresses_are_not_asked_for_elsewhere(attributes: str, domain: str) -> None:
    local = "<domain name='d' localOnly='yes'/>" + f"<ip {attributes} localPtr='yes'/>"
    found = lines(network(local))
    assert f"local=/{domain}/" in found
    assert found[found.index("local=/d/") :][:3] == ["local=/d/", "domain=d", "expand-hosts"]


def test_a_prefix_between_digits_has_no_domain_of_its_own() -> None:
    with pytest.raises(ModelError, match="prefix 20 cannot be automatically created"):
        lines(network("<ip address='10.1.2.3' prefix='20' localPtr='yes'/>"))


def test_questions_are_passed_on() -> None:
    body = FORWARDED + "<dns forwardPlainNames='no'><forwarder domain='d'/><forwarder addr='1.2.3.4'/></dns>"
    found = lines(network(body))
    assert found[1:3] == ["server=/d/#", "server=1.2.3.4"]
    assert all(line in found for line in ("no-resolv", "domain-needed", "local=//"))


@pytest.mark.parametrize(
    ("attributes", "line"),
    [("domain='d' target='t' port='1' priority='2' weight='3'", "srv-host=_s._tcp.d,t,1,2,3"),
     ("target='t' weight='3'", "srv-host=_s._tcp,t,1,0,3"),
     ("target='t'", "srv-host=_s._tcp,t"),
     ("target='.'", "srv-host=_s._tcp")],
)  # fmt: skip
def test_services_have_records(attributes: str, line: str) -> None:
    assert line in lines(network(f"<dns><srv service='s' protocol='tcp' {attributes}/></dns>"))


@pytest.mark.parametrize("end", ["&#10;", "&#13;"])
@pytest.mark.parametrize(
    "body",
    ["<dns><txt name='a' value='b{end}dhcp-script=/bin/sh'/></dns>",
     "<domain name='d{end}conf-file=/etc/shadow'/>",
     "<ip address='1.2.3.4' prefix='8'><tftp root='/{end}x'/></ip>"],
)  # fmt: skip
def test_a_value_with_a_line_end_is_no_setting(body: str, end: str) -> None:
    with pytest.raises(ModelError, match="line end"):
        lines(network(body.format(end=end)))


def test_names_and_hosts_have_no_line_ends_either() -> None:
    with pytest.raises(ModelError, match="line end"):
        names_file(network("<dns><host ip='1.2.3.4'><hostname>a&#10;b</hostname></host></dns>"))
    hostile = network("<ip address='10.0.0.1' prefix='8'><dhcp><host name='a&#10;b' ip='10.0.0.2'/></dhcp></ip>")
    with pytest.raises(ModelError, match="line end"):
        hosts_file(hostile)


def test_dhcp_is_for_one_address_of_a_family() -> None:
    one = "<ip address='{}.0.0.1' prefix='8'><dhcp><range start='{}.0.0.2' end='{}.0.0.9'/></dhcp></ip>"
    both = network("".join(one.replace("{}", first) for first in ("10", "11")))
    with pytest.raises(ModelError, match="multiple DHCP definitions"):
        lines(both)


def joined(network: Network) -> list[str]:
    return [" ".join(command) for command in commands(network)]


def test_an_isolated_network_is_walled_in() -> None:
    found = joined(network("<ip address='192.168.1.1' prefix='24'/>"))
    assert "iptables -w --table filter --insert LIBVIRT_FWO --in-interface br --jump REJECT" in found
    assert not [line for line in found if "--source" in line or "--table nat" in line or line.startswith("ip6")]


def test_guests_of_a_translated_network_get_out_and_have_answers() -> None:
    found = joined(network(f"<forward mode='nat' dev='eth0'/>{IPV4.format(attributes='')}{IPV6}"))
    nat = "iptables -w --table nat --insert LIBVIRT_PRT --source 192.168.1.0/24"
    outside = "! --destination 192.168.1.0/24 --out-interface eth0"
    assert f"{nat} -p tcp {outside} --jump MASQUERADE --to-ports 1024-65535" in found
    assert found[-1].endswith("--jump CHECKSUM --checksum-fill")
    related = [line for line in found if "ESTABLISHED,RELATED" in line]
    assert [line.split()[0] for line in related] == ["iptables"]  # IPv6 is routed


def test_ipv6_is_translated_where_that_is_said() -> None:
    found = joined(network(f"<forward mode='nat'><nat ipv6='yes'/></forward>{IPV6}"))
    assert any(line.startswith("ip6tables") and "MASQUERADE" in line for line in found)


def test_addresses_and_ports_to_translate_to_may_be_given() -> None:
    nat = "<nat><address start='1.2.3.4' end='1.2.3.9'/><port start='5' end='9'/></nat>"
    found = joined(network(f"<forward mode='nat'>{nat}</forward><ip address='10.0.0.1' prefix='8'/>"))
    assert any(line.endswith("--jump SNAT --to-source 1.2.3.4-1.2.3.9:5-9") for line in found)
    assert any(line.endswith("--jump SNAT --to-source 1.2.3.4-1.2.3.9") for line in found)


def test_ports_are_a_range() -> None:
    nat = "<nat><port start='9' end='9'/></nat>"
    with pytest.raises(ModelError, match="Invalid port range '9-9'"):
        commands(network(f"<forward mode='nat'>{nat}</forward><ip address='10.0.0.1' prefix='8'/>"))


def test_an_ipv6_network_is_served() -> None:
    found = joined(network(IPV6))
    service = "--in-interface br --protocol udp --destination-port 547"
    assert f"ip6tables -w --table filter --insert LIBVIRT_INP {service} --jump ACCEPT" in found
