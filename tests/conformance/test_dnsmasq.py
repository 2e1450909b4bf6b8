"""Our configuration of networks' DNS and DHCP is one to the real dnsmasq."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hostel.drivers.network.dnsmasq import configuration, hosts_file, names_file
from hostel.model.network import Network
from hostel.model.network_defaults import read_network

pytestmark = pytest.mark.requires_tool("dnsmasq")

GOLDEN = Path(__file__).parents[1] / "golden" / "network"
FULL = """<network><name>n</name><bridge name='lo'/><mtu size='9000'/><domain name='example.org' localOnly='yes'/>
<dns forwardPlainNames='no'>
<forwarder domain='a.example' addr='192.0.2.53'/><forwarder domain='b.example'/><forwarder addr='2001:db8::53'/>
<txt name='t' value='a text, with a comma'/>
<srv service='s' protocol='tcp' domain='d' target='t' port='1' priority='2' weight='3'/>
<srv service='s' protocol='udp'/><host ip='192.0.2.9'><hostname>h</hostname></host></dns>
<ip address='127.0.0.1' prefix='8' localPtr='yes'><tftp root='/tmp'/><dhcp>
<range start='127.0.0.10' end='127.0.0.20'><lease expiry='2' unit='hours'/></range>
<host mac='52:54:00:00:00:01' name='one' ip='127.0.0.11'><lease expiry='0'/></host>
<bootp file='boot.img' server='127.0.0.2'/></dhcp></ip>
<ip family='ipv6' address='2001:db8::1' prefix='64' localPtr='yes'><dhcp>
<range start='2001:db8::10' end='2001:db8::20'/><host id='0:1:2:3' name='six' ip='2001:db8::11'/>
</dhcp></ip></network>"""


def networks() -> list[Network]:
    """Those that dnsmasq serves."""
    paths = [path for path in sorted(GOLDEN.glob("*.xml")) if not path.name.endswith(".out.xml")]
    found = [read_network(path.read_text()) for path in paths]
    return [read_network(FULL), *(network for network in found if network.ips)]


@pytest.mark.parametrize("network", networks(), ids=lambda network: network.name)
def test_dnsmasq_takes_what_we_write(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "n.conf"
    path.write_text(configuration(network, str(tmp_path)))
    (tmp_path / f"{network.name}.hostsfile").write_text(hosts_file(network))
    (tmp_path / f"{network.name}.addnhosts").write_text(names_file(network))
    command = ["dnsmasq", "--test", f"--conf-file={path}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "syntax check OK" in answer.stderr
