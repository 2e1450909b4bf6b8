"""A guest's tap on a bridge, in a network of our own, and frames of every kind that its guest may send.

``python -m support.filtered NAME`` runs a function of this module in such a network: what a filter lets through is
tried with real frames, and what the host's tables hold is read by their own programs.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lxml import etree

import hostel
from hostel.drivers.link.spoofing import hold, let_go
from hostel.drivers.nwfilter import learning
from hostel.drivers.nwfilter.bindings import Bindings
from hostel.drivers.nwfilter.commands import Command, commands
from hostel.drivers.nwfilter.firewall import Firewall
from hostel.drivers.nwfilter.instance import instances
from hostel.drivers.nwfilter.standard import standard_filters
from hostel.drivers.nwfilter.system import SystemNwfilterDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ModelError, VirtError
from hostel.model.nwfilter.filter import Filter, Rule, read_filter
from hostel.objects import Connection
from support import hosteld, libvirtd_system
from support.relaxng import Schema
from support.virsh import Real, run_lines

MAC, OTHER = "52:54:00:11:22:33", "52:54:00:99:99:99"
IP, PEER_IP = "10.0.0.2", "10.0.0.9"
OWNER = "6b6c2a48-0d76-4b0c-9d2f-000000000001"
BROADCAST = "ff:ff:ff:ff:ff:ff"
TAP, GUEST, PEER = "vnet0", "guest0", "peer0"
_WAIT = 0.1  # seconds in which a frame gets through, if it does
_IPV4, _ARP, _UNKNOWN = 0x0800, 0x0806, 0x88B5


def sh(script: str) -> str:
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout


def tables() -> str:
    """All that there is of rules."""
    return sh("ebtables -t nat -L; iptables -S; ip6tables -S")


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, target: str, kind: int, data: bytes) -> bytes:
    return raw(target) + raw(source) + struct.pack(">H", kind) + data.ljust(46, b"\0")


def ipv4(source: str, target: str, protocol: int, data: bytes) -> bytes:
    """A packet with its checksum."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0) + addresses
    total = sum(struct.unpack(">10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack(">H", ~total & 0xFFFF) + header[12:] + data


def udp(source: int, target: int, data: bytes = bytes(40)) -> bytes:
    return struct.pack(">HHHH", source, target, 8 + len(data), 0) + data


def arp(mac: str, ip: str) -> bytes:
    target = bytes(6) + socket.inet_aton(PEER_IP)
    return struct.pack(">HHBBH", 1, _IPV4, 6, 4, 1) + raw(mac) + socket.inet_aton(ip) + target


def dhcp(kind: int, *, reply: bool = False, given: str = "0.0.0.0", own: str = "0.0.0.0", seconds: int = 0) -> bytes:
    """A message of DHCP about the guest, as UDP."""
    head = struct.pack(">BBBBIHH", 2 if reply else 1, 1, 6, 0, 7, 0, 0)
    addresses = socket.inet_aton(own) + socket.inet_aton(given) + bytes(8)
    options = bytes((53, 1, kind)) + (bytes((51, 4)) + struct.pack(">I", seconds) if seconds else b"")
    message = head + addresses + raw(MAC).ljust(208, b"\0") + bytes((0x63, 0x82, 0x53, 0x63)) + options + b"\xff"
    return udp(67, 68, message) if reply else udp(68, 67, message)


class Network:
    """A bridge with a guest's tap and a peer; cables stand for taps, and the far ends for who is on them."""

    def __init__(self) -> None:
        cable = "type veth peer name"
        sh(
            f"sysctl -qw net.ipv6.conf.default.disable_ipv6=1; ip link add br0 type bridge; ip link set br0 up;"
            f"ip link add {GUEST} address {MAC} {cable} {TAP}; ip link add {PEER} address {OTHER} {cable} cable0;"
            f"ip link set {TAP} master br0; ip link set cable0 master br0;"
            f"for name in {GUEST} {TAP} {PEER} cable0; do ip link set $name up; done"
        )
        self._guest, self._peer = self._open(GUEST), self._open(PEER)
        self.wait_for(FREE)  # the bridge forwards once the kernel has noticed that both cables are plugged in
        self.directories = Directories.under(Path(tempfile.mkdtemp()))
        self.driver = SystemNwfilterDriver(self.directories)

    @staticmethod
    def _open(name: str) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        opened.bind((name, 3))
        return opened

    def sent(self, frame: bytes, *, back: bool = False, wait: float = _WAIT) -> bool:
        """Whether a frame of the guest's gets to the peer; ``back``: one of the peer's to the guest."""
        there, here = (self._guest, self._peer) if back else (self._peer, self._guest)
        while select.select([there], [], [], 0)[0]:
            there.recv(4096)
        here.send(frame)
        deadline = time.monotonic() + wait
        while select.select([there], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if there.recv(4096) == frame:
                return True
        return False

    def passes(self) -> str:
        """What the guest may send: honest frames in capitals, others in small letters."""
        frames = {
            "I": ethernet(MAC, OTHER, _IPV4, ipv4(IP, PEER_IP, 17, udp(1, 2))),
            "A": ethernet(MAC, BROADCAST, _ARP, arp(MAC, IP)),
            "m": ethernet("52:54:00:77:77:77", OTHER, _IPV4, ipv4(IP, PEER_IP, 17, udp(1, 2))),
            "i": ethernet(MAC, OTHER, _IPV4, ipv4("10.0.0.3", PEER_IP, 17, udp(1, 2))),
            "a": ethernet(MAC, BROADCAST, _ARP, arp(MAC, "10.0.0.3")),
            "h": ethernet(MAC, BROADCAST, _ARP, arp("52:54:00:77:77:77", IP)),
            "x": ethernet(MAC, OTHER, _UNKNOWN, b"other"),
        }
        return "".join(name for name, frame in frames.items() if self.sent(frame))

    def wait_for(self, passing: str) -> None:
        deadline = time.monotonic() + 60
        while (now := self.passes()) != passing:
            assert time.monotonic() < deadline, now


def binding(filter: str = "clean-traffic", *parameters: tuple[str, str], port: str = TAP) -> str:
    """The document of a binding."""
    values = "".join(f"<parameter name='{name}' value='{value}'/>" for name, value in parameters)
    owner = f"<owner><name>vm</name><uuid>{OWNER}</uuid></owner>"
    reference = f"<filterref filter='{filter}'>{values}</filterref>"
    return f"<filterbinding>{owner}<portdev name='{port}'/><mac address='{MAC}'/>{reference}</filterbinding>"


def own_filter(rules: str, name: str = "own", chain: str = "root") -> str:
    uuid = "4c3b7d1e-0c57-4c9e-8a53-9d6a1d0c0001"
    return f"<filter name='{name}' chain='{chain}'><uuid>{uuid}</uuid>{rules}</filter>"


KNOWN = ("IP", IP)
CLEAN, FREE = "IA", "IAmiahx"
# A filter that needs every program.
MIXED = own_filter(
    "<filterref filter='no-mac-spoofing'/>"
    "<rule action='drop' direction='in' priority='500'><tcp dstportstart='22'/></rule>"
    "<rule action='accept' direction='out'><udp srcipaddr='$IP' comment='to whom'/></rule>"
    "<rule action='accept' direction='inout'><icmpv6/></rule><rule action='drop' direction='out'>"
    "<mac protocolid='0x88b5'/></rule>"
)


def packets() -> None:
    network = Network()
    # Others' rules are there before and after.
    sh("ebtables -t nat -A PREROUTING -i other -j DROP; iptables -N theirs; iptables -A FORWARD -j theirs")
    before = tables()
    assert network.passes() == FREE
    network.driver.nwfilter_binding_create_xml(binding("clean-traffic", KNOWN))
    assert network.passes() == CLEAN
    assert not network.sent(ethernet(OTHER, MAC, _UNKNOWN, b"other"), back=True)
    assert network.sent(ethernet(OTHER, MAC, _IPV4, ipv4(PEER_IP, IP, 17, udp(1, 2))), back=True)
    network.driver.remove_of(OWNER, MAC)
    assert tables() == before
    assert network.passes() == FREE
    network.driver.nwfilter_define_xml(MIXED)
    network.driver.nwfilter_binding_create_xml(binding("own", KNOWN))
    assert "-A FORWARD -j theirs" in tables()
    assert network.passes() == "IAiah"
    network.driver.nwfilter_binding_delete(network.driver.nwfilter_binding_lookup_by_port_dev(TAP))
    assert tables() == before


def spoofing() -> None:
    """Without any filter a guest may be kept to its own hardware address."""
    network = Network()
    folder = network.directories.state / "mac"
    before = sh("nft list tables bridge")
    hold(folder, TAP, "52:54:00:77:77:77")
    hold(folder, TAP, MAC)  # what was left of another guest is gone
    assert network.passes() == "IAiahx"
    assert network.sent(ethernet(OTHER, MAC, _UNKNOWN, b"back"), back=True)
    let_go(folder, TAP)
    let_go(folder, TAP)
    assert network.passes() == FREE
    assert sh("nft list tables bridge") == before
    assert not [*folder.iterdir()]


def learning_any() -> None:
    network = Network()
    network.driver.nwfilter_binding_create_xml(binding())
    assert network.passes().startswith("IA")  # of which the first packet is the one that is learned
    network.wait_for(CLEAN)
    bindings = Bindings(network.directories)
    assert list(bindings.addresses(TAP)) == [IP]
    assert bindings.learning(TAP) is None
    wait_until(lambda: not learning.is_running(bindings.lock_of_learner(TAP)))
    # An address that is given by DHCP is as good.
    network.driver.remove_of(OWNER, MAC)
    network.driver.nwfilter_binding_create_xml(binding())
    answer = ethernet(OTHER, MAC, _IPV4, ipv4(PEER_IP, IP, 17, dhcp(5, reply=True, given=IP, seconds=60)))
    assert network.sent(answer, back=True)
    network.wait_for(CLEAN)
    network.driver.remove_of(OWNER, MAC)
    # The process ends with the interface.
    network.driver.nwfilter_binding_create_xml(binding())
    wait_until(lambda: learning.is_running(bindings.lock_of_learner(TAP)))
    sh(f"ip link delete {TAP}")
    wait_until(lambda: not learning.is_running(bindings.lock_of_learner(TAP)))
    network.driver.remove_of(OWNER, MAC)
    assert "vnet0" not in tables()


def learning_dhcp() -> None:
    network = Network()
    sh(f"ip link set {TAP} down")  # as a tap is when its guest starts
    network.driver.nwfilter_binding_create_xml(binding("clean-traffic", ("CTRL_IP_LEARNING", "dhcp")))
    time.sleep(0.5)
    sh(f"ip link set {TAP} up")
    assert network.passes() == ""
    ask = ethernet(MAC, BROADCAST, _IPV4, ipv4("0.0.0.0", "255.255.255.255", 17, dhcp(1)))
    assert network.sent(ask)
    forged = ethernet(MAC, OTHER, _IPV4, ipv4(PEER_IP, "255.255.255.255", 17, dhcp(5, reply=True, given="10.0.0.3")))
    assert not network.sent(forged)
    answer = ethernet(OTHER, MAC, _IPV4, ipv4(PEER_IP, IP, 17, dhcp(5, reply=True, given=IP, seconds=3)))
    assert network.sent(answer, back=True)
    network.wait_for(CLEAN)
    network.wait_for("")  # the address was the guest's for three seconds
    lasting = ethernet(OTHER, MAC, _IPV4, ipv4(PEER_IP, IP, 17, dhcp(5, reply=True, given=IP, seconds=600)))
    assert network.sent(lasting, back=True)
    network.wait_for(CLEAN)
    # Who listens is killed: the next who changes rules has another one listen.
    lock = Bindings(network.directories).lock_of_learner(TAP)
    assert learning.is_running(lock)
    os.kill(holder(lock), signal.SIGKILL)
    wait_until(lambda: not learning.is_running(lock))
    network.driver.nwfilter_define_xml(MIXED)
    wait_until(lambda: learning.is_running(lock))
    release = ethernet(MAC, OTHER, _IPV4, ipv4(IP, PEER_IP, 17, dhcp(7, own=IP)))
    assert network.sent(release)
    network.wait_for("")
    network.driver.remove_of(OWNER, MAC)
    wait_until(lambda: not learning.is_running(lock))


def holder(lock: Path) -> int:
    """The process that has a file locked."""
    inode = f":{lock.stat().st_ino} "
    return next(int(line.split()[4]) for line in Path("/proc/locks").read_text().splitlines() if inode in line)


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def redefining() -> None:
    network = Network()
    sh("ip link add vnet1 type dummy 2>/dev/null || ip link add vnet1 type veth peer name far1")
    driver = network.driver
    driver.nwfilter_define_xml(own_filter("<rule action='drop' direction='out'><mac protocolid='0x88b5'/></rule>"))
    driver.nwfilter_define_xml(
        own_filter("<filterref filter='own'/>", name="around").replace("0001</uuid>", "0002</uuid>")
    )
    driver.nwfilter_binding_create_xml(binding("around"))
    driver.nwfilter_binding_create_xml(binding("own", ("PORTS", "1"), ("PORTS", "2"), port="vnet1"))
    assert network.passes() == "IAmiah"
    driver.nwfilter_define_xml(own_filter("<rule action='drop' direction='out'><mac protocolid='arp'/></rule>"))
    assert network.passes() == "Imix"
    before = tables()
    # One of the two has no value for the variable; and a rule that the kernel's program refuses.
    for rules, said in (
        ("<rule action='drop' direction='out'><ip protocol='udp' dstportstart='$PORTS'/></rule>", "PORTS"),
        ("<rule action='drop' direction='out'><tcp ipset='nothing' ipsetflags='src'/></rule>", "nothing"),
    ):
        try:
            driver.nwfilter_define_xml(own_filter(rules))
        except VirtError as error:
            assert said in str(error), error
        else:
            raise AssertionError(rules)
        assert tables() == before
        assert "protocolid='arp'" in driver.nwfilter_get_xml_desc(driver.nwfilter_lookup_by_name("own"))
    try:
        driver.nwfilter_undefine(driver.nwfilter_lookup_by_name("own"))
    except VirtError as error:
        assert error.code is ErrorCode.OPERATION_INVALID
    else:
        raise AssertionError("undefined while in use")
    driver.nwfilter_binding_delete(driver.nwfilter_binding_lookup_by_port_dev("vnet1"))
    driver.remove_of(OWNER, MAC)
    assert "vnet" not in tables()


def kills() -> None:
    """Whoever is killed between two commands leaves what the next one puts right."""
    network = Network()
    driver = network.driver
    driver.nwfilter_define_xml(MIXED)
    document = binding("own", KNOWN)
    driver.nwfilter_binding_create_xml(document)
    expected = tables()
    driver.remove_of(OWNER, MAC)
    for step in (2, 25):
        _killed_at(step, lambda: driver.nwfilter_binding_create_xml(document))
        driver.nwfilter_define_xml(MIXED)  # whoever changes rules next
        assert [ref.port_device for ref in driver.connect_list_all_nwfilter_bindings()] == [TAP], step
        assert tables() == expected, step
        driver.remove_of(OWNER, MAC)
        assert "vnet0" not in tables()
    driver.nwfilter_binding_create_xml(document)
    changed = MIXED.replace("0x88b5", "0x88b6")
    _killed_at(36, lambda: driver.nwfilter_define_xml(changed))
    driver.nwfilter_undefine(driver.nwfilter_lookup_by_name("allow-ipv4"))
    now = driver.nwfilter_get_xml_desc(driver.nwfilter_lookup_by_name("own"))
    assert tables() == (expected if "0x88b5" in now else expected.replace("0x88b5", "0x88b6"))
    driver.nwfilter_define_xml(MIXED)
    assert tables() == expected
    _killed_at(9, lambda: driver.remove_of(OWNER, MAC))
    driver.remove_of(OWNER, MAC)
    assert "vnet0" not in tables()


def _killed_at(step: int, change: Callable[[], object]) -> None:
    """Make a change in a process that is killed before one of its commands, if there are so many."""
    pid = os.fork()
    if not pid:
        left = [step]
        run = Firewall._run

        def counted(command: object) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            run(command)  # type: ignore[arg-type]

        Firewall._run = staticmethod(counted)  # type: ignore[method-assign]
        change()
        os._exit(0)
    os.waitpid(pid, 0)


def beside_libvirtd() -> None:
    """Our virsh and the real one say the same, and leave the same rules."""
    network = Network()
    work = Path(tempfile.mkdtemp())
    files = {
        "own": MIXED,
        "clean": binding("clean-traffic", KNOWN),
        "mixed": binding("own", KNOWN),
        "gateway": binding("clean-traffic-gateway", KNOWN),
        "none": binding("clean-traffic", ("CTRL_IP_LEARNING", "none")),
        "odd": binding("clean-traffic", ("CTRL_IP_LEARNING", "odd")),
        "missing": binding("no-such-filter"),
        "bad": "<filterbinding/>",
        "lists": own_filter(
            "<rule action='accept' direction='out'><ip srcipaddr='$IP' protocol='tcp' dstportstart='$PORT[@1]'/></rule>"
            "<rule action='drop' direction='inout'><stp type='0x12' root-priority='5' root-priority-hi='9'/></rule>"
            "<rule action='drop' direction='in'><vlan vlanid='5'/></rule>",
            name="lists",
        ).replace("0001</uuid>", "0009</uuid>"),
        "listed": binding("lists", KNOWN, ("PORT", "80"), ("PORT", "443")),
    }
    for name, text in files.items():
        (work / name).write_text(text)
    lines = [
        line.replace("@", f"{work}/")
        for line in """
        nwfilter-binding-list;nwfilter-define @own;nwfilter-define @lists;nwfilter-binding-create @clean;
        nwfilter-binding-create @clean;nwfilter-binding-list;nwfilter-binding-dumpxml vnet0;
        nwfilter-undefine no-mac-spoofing;nwfilter-undefine allow-arp;nwfilter-dumpxml allow-arp;
        nwfilter-binding-delete vnet0;nwfilter-binding-delete vnet0;nwfilter-binding-create @mixed;
        nwfilter-binding-delete vnet0;nwfilter-binding-create @listed;nwfilter-binding-delete vnet0;
        nwfilter-binding-create @gateway;nwfilter-binding-create @none;nwfilter-binding-create @odd;
        nwfilter-binding-create @missing;nwfilter-binding-create @bad;nwfilter-binding-create @nothing;
        nwfilter-binding-dumpxml nothing;nwfilter-binding-list
        """.replace("\n", "").split(";")
    ]
    told: dict[str, list[tuple[str, object]]] = {}
    for who in ("theirs", "ours"):
        told[who] = list(_transcript(network, who, [line.strip() for line in lines]))
    for theirs, ours in zip(told["theirs"], told["ours"], strict=True):
        assert theirs == ours, (theirs, ours)


def every_rule() -> None:
    """The kernel takes the rules of filters that libvirt's schema allows and we take, but for sets of addresses."""
    lines: dict[str, list[str]] = {"ebtables": [], "iptables": [], "ip6tables": []}
    chains: dict[str, dict[str, None]] = {program: {} for program in lines}
    no_others: dict[str, Filter] = {}
    silent = []
    for _, document in Schema("nwfilter").documents(every_route=True):
        xml = etree.tostring(document, encoding="unicode")
        try:
            filter = read_filter(xml)
        except ModelError:
            continue  # what is refused: compared with libvirt elsewhere
        if not any(isinstance(entry, Rule) for entry in filter.entries) or "ipset" in xml or "$" in xml:
            continue
        found = list(_appended(commands(TAP, instances(filter, {"MAC": [MAC]}, no_others.__getitem__))))
        for program, chain, line in found:
            chains[program][chain] = None
            lines[program].append(line)
        if not found:
            silent.append(xml)
    for program, rules in lines.items():
        assert len(rules) > 150, program
        start, policy, end = ("*nat", "ACCEPT", "") if program == "ebtables" else ("*filter", "- [0:0]", "COMMIT\n")
        text = "\n".join([start, *(f":{chain} {policy}" for chain in chains[program]), *rules, end])
        done = subprocess.run(
            [f"{program}-restore"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (program, done.stderr, rules)
    # A type of message has no answer that could be told by it: such a rule is for one direction.
    assert all("<icmp" in xml and 'direction="inout"' in xml for xml in silent), silent


def _appended(found: Iterable[Command]) -> Iterable[tuple[str, str, str]]:
    """Programs, chains of the rules of filters, and the rules as what restores tables reads them."""
    for command in found:
        words = command.arguments
        if "-A" in words:
            own = words[words.index("-A") :]
            if own[1] not in ("PREROUTING", "POSTROUTING") and (words[0] == "ebtables" or "libvirt" not in own[1]):
                yield words[0], own[1], shlex.join(own)


def by_daemon() -> None:
    """Real virsh has filters put in force by our daemon, and our virsh finds them there."""
    network = Network()
    file = Path(tempfile.mkdtemp()) / "binding"
    file.write_text(binding("clean-traffic", KNOWN))
    with hosteld.process() as daemon:
        uri = f"qemu+unix:///system?socket={daemon.socket}"
        virsh = Real(uri)
        assert virsh.run(f"nwfilter-binding-create {file}")[0] == 0
        assert network.passes() == CLEAN
        ours = run_lines(uri, hostel.open, [["nwfilter-binding-list"], ["nwfilter-binding-dumpxml", TAP]])
        assert ours == [virsh.run("nwfilter-binding-list"), virsh.run(f"nwfilter-binding-dumpxml {TAP}")]
        assert virsh.run(f"nwfilter-binding-delete {TAP}")[0] == 0
        assert network.passes() == FREE
        missing = "no nwfilter binding for port dev 'nothing'"
        assert missing in virsh.run("nwfilter-binding-dumpxml nothing")[2]


def _transcript(network: Network, who: str, lines: list[str]) -> Iterable[tuple[str, object]]:
    """What virsh says to each line, and the rules after it."""
    if who == "ours":

        def opener(uri: str, *, read_only: bool) -> Connection:
            return hostel.open(uri, network.directories, read_only=read_only)

        for line in lines:
            yield line, (run_lines("qemu:///system", opener, [line.split()])[0], _settled(line))
        return
    filters = {name: filter.format() for name, filter in standard_filters().items()}
    with libvirtd_system.running(drivers=("nwfilter",), filters=filters) as uri:
        virsh = Real(uri)
        for line in lines:
            code, out, err = virsh.run(line)
            yield line, ((code, out, err), _settled(line))


def _settled(line: str) -> str:
    """The rules after a line, without the chains that libvirt leaves empty when no interface has rules any more."""
    if "-binding-create" not in line and "-binding-delete" not in line:
        return ""
    shared = ("libvirt-in", "libvirt-out", "libvirt-in-post", "libvirt-host-in")
    return "\n".join(line for line in tables().splitlines() if not line.endswith(shared))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
