"""What ebtables and iptables are told of filters; libvirt's own cases are in ``make libvirt-data``."""

from __future__ import annotations

import pytest

from hostel.drivers.nwfilter.commands import Command, commands
from hostel.drivers.nwfilter.instance import Variables, instances
from hostel.errors import ModelError
from hostel.model.nwfilter.filter import Filter, read_filter


def read(body: str, chain: str = "root") -> Filter:
    return read_filter(f"<filter name='f' chain='{chain}'>{body}</filter>")


def nothing(name: str) -> Filter:
    raise AssertionError(name)


def told(filter: Filter, variables: Variables | None = None) -> list[Command]:
    return commands("vnet0", instances(filter, variables or {}, nothing))


def rules(body: str, variables: Variables | None = None, direction: str = "out", action: str = "accept") -> list[str]:
    """What is said of the packets that guests send, from the name of the chain on."""
    filter = read(f"<rule action='{action}' direction='{direction}'>{body}</rule>")
    lines = [" ".join(command.arguments) for command in told(filter, variables)]
    chains = ("-A FJ-vnet0 ", "-A libvirt-J-vnet0 ")
    return [line.partition(chain)[2] for line in lines for chain in chains if chain in line]


MAC = "52:54:00:00:00:01"


@pytest.mark.parametrize(
    ("body", "expected"),
    [("<mac srcmacaddr='52:54:0:0:0:1' protocolid='arp'/>", f"-s {MAC} -p 0x806"),
     ("<mac match='no' srcmacaddr='$MAC'/>", f"-s ! {MAC}"),
     ("<vlan vlanid='0x10' encap-protocol='ipv4'/>", "-p 0x8100 --vlan-id 16 --vlan-encap 2048"),
     ("<arp match='no' arpsrcipaddr='10.0.0.1' arpsrcipmask='8'/>", "-p 0x806 --arp-ip-src ! 10.0.0.1/8"),
     ("<arp arpsrcipaddr='10.0.0.1' arpsrcipmask='8' arpdstipaddr='10.0.0.2'/>",
      "-p 0x806 --arp-ip-src 10.0.0.1/8 --arp-ip-dst 10.0.0.2/32"),
     ("<rarp opcode='Request' protocoltype='0x800' gratuitous='true'/>",
      "-p 0x8035 --arp-opcode 1 --arp-ptype 0x800 --arp-gratuitous"),
     ("<arp match='no' gratuitous='yes'/>", "-p 0x806 ! --arp-gratuitous"),
     ("<ip protocol='udp' srcportstart='1' srcportend='2' dscp='5'/>",
      "-p ipv4 --ip-protocol 17 --ip-source-port 1:2 --ip-tos 0x5"),
     ("<ipv6 srcipaddr='::ffff:a01:203'/>", "-p ipv6 --ip6-source ::ffff:10.1.2.3"),
     ("<ipv6 type='1'/>", "-p ipv6 --ip6-protocol 58 --ip6-icmp-type 1:1/0:255"),
     ("<ipv6 match='no' type='1' typeend='3' code='2'/>", "-p ipv6 --ip6-protocol 58 --ip6-icmp-type ! 1:3/2:2"),
     ("<ipv6 codeend='9'/>", "-p ipv6 --ip6-protocol 58 --ip6-icmp-type 0:255/0:9"),
     ("", "")],
)  # fmt: skip
def test_frames_are_matched(body: str, expected: str) -> None:
    assert rules(body, {"MAC": [MAC]}) == [f"{expected} -j ACCEPT".strip()]


STATE = "-m conntrack --ctstate NEW,ESTABLISHED -m conntrack --ctdir Original"


@pytest.mark.parametrize(
    ("body", "expected"),
    [("<tcp match='no' flags='SYN,ACK/SYN' option='0x2'/>",
      f"-p tcp ! --tcp-flags SYN,ACK SYN ! --tcp-option 2 {STATE}"),
     ("<tcp-ipv6 flags='SYN/SYN'/>", f"-p tcp --tcp-flags SYN SYN {STATE}"),
     ("<udp srcipfrom='10.0.0.1' srcipto='10.0.0.9' dstportstart='53'/>",
      f"-p udp -m iprange --src-range 10.0.0.1-10.0.0.9 --dport 53 {STATE}"),
     ("<icmp match='no' type='8' code='0'/>", "-p icmp ! --icmp-type 8/0 -m conntrack --ctstate NEW,ESTABLISHED"),
     ("<all connlimit-above='3' comment='a; `b`'/>",
      "-p all -m connlimit --connlimit-above 3 -m comment --comment a; `b`"),
     ("<all state='NEW'/>", "-p all -m conntrack --ctstate NEW"),
     ("<all state='NONE'/>", "-p all")],
)  # fmt: skip
def test_packets_are_matched(body: str, expected: str) -> None:
    assert rules(body) == [f"{expected} -j RETURN"]


def test_what_is_dropped_has_no_answers() -> None:
    assert rules("<tcp/>", action="drop") == ["-p tcp -j DROP"]
    assert rules("<tcp/>", action="reject") == ["-p tcp -j REJECT"]
    assert rules("<mac/>", action="reject") == ["-j DROP"]  # ebtables cannot answer


def test_a_comment_is_one_argument() -> None:
    told_of = told(read("<rule action='drop' direction='in'><tcp comment='a -j ACCEPT'/></rule>"))
    assert any("a -j ACCEPT" in command.arguments for command in told_of)


def test_both_directions_are_matched_with_their_ends_exchanged() -> None:
    ends = "<ip srcipaddr='10.0.0.1' dstportstart='7' protocol='tcp'/>"
    assert rules(ends, direction="inout") == [
        "-p ipv4 --ip-destination 10.0.0.1 --ip-protocol 6 --ip-source-port 7 -j ACCEPT"
    ]
    assert rules(ends, direction="in") == []
    assert rules("<udp srcipaddr='10.0.0.1'/>", direction="inout") == ["-p udp --destination 10.0.0.1 -j RETURN"]


@pytest.mark.parametrize("kind", ["<all srcmacaddr='52:54:00:00:00:01'/>", "<all connlimit-above='1'/>"])
def test_what_cannot_be_seen_in_a_direction_is_left_out(kind: str) -> None:
    assert rules(kind, direction="in") == []


def test_frames_of_bridges_have_their_destination() -> None:
    with pytest.raises(ModelError, match="STP filtering in inout direction"):
        rules("<stp srcmacaddr='52:54:00:00:00:01'/>", direction="inout")


A, B = ["1.1.1.1", "2.2.2.2", "1.1.1.1"], ["1", "2", "1"]


@pytest.mark.parametrize(
    ("match", "expected"),
    [("srcipaddr='$A' srcportstart='$B'", ["1.1.1.1 1", "2.2.2.2 2"]),
     ("srcipaddr='$A[@1]' srcportstart='$B[@2]'", ["1.1.1.1 1", "2.2.2.2 1", "1.1.1.1 2", "2.2.2.2 2"]),
     ("srcipaddr='$A[1]' srcportstart='$B'", ["2.2.2.2 1", "2.2.2.2 2"])],
)  # fmt: skip
def test_variables_are_gone_through(match: str, expected: list[str]) -> None:
    found = rules(f"<tcp {match}/>", {"A": A, "B": B})
    assert [" ".join(line.split()[3:6:2]) for line in found] == expected


@pytest.mark.parametrize(
    ("match", "variables", "reason"),
    [("srcipaddr='$A'", {}, "Could not find value for variable 'A'"),
     ("srcipaddr='$A'", {"A": []}, "Could not find value for variable 'A'"),
     ("srcipaddr='$A[3]'", {"A": A}, "it has 3"),
     ("srcipaddr='$A' srcportstart='$B'", {"A": A, "B": ["1"]}, "Cardinality of list items must be the same")],
)  # fmt: skip
def test_variables_without_values_are_refused(match: str, variables: Variables, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        rules(f"<tcp {match}/>", variables)


def test_rules_of_other_filters_have_their_place_and_their_values() -> None:
    rule = "<rule action='drop' direction='out' priority='500'><tcp srcportstart='$P'/></rule>"
    others = {"inner": read(rule)}
    reference = "<filterref filter='inner'><parameter name='P' value='{}'/></filterref>"
    outer = read(reference.format(1) + rule + reference.format(2))
    found = list(instances(outer, {}, others.__getitem__))
    assert [instance.variables.get("P") for instance in found] == [["1"], None, ["2"]]
    given = list(instances(outer, {"P": ["9"]}, others.__getitem__))
    assert [instance.variables["P"] for instance in given] == [["9"]] * 3  # what is said further out counts


def test_a_filter_is_not_inside_itself() -> None:
    filters = {
        name: read_filter(f"<filter name='{name}'><filterref filter='{to}'/></filter>") for name, to in ("ab", "ba")
    }
    with pytest.raises(ModelError, match="the filter 'a' refers to itself: a > b > a"):
        list(instances(filters["a"], {}, filters.__getitem__))


def test_a_chain_is_there_before_its_rules_and_after_the_root() -> None:
    def named(chain: str, priority: int) -> Filter:
        rule = f"<rule action='drop' direction='out' priority='{priority}'><mac/></rule>"
        return read_filter(f"<filter name='{chain}' chain='{chain}'>{rule}</filter>")

    every = [*instances(named("arp-x", -900), {}, nothing), *instances(named("root", 100), {}, nothing)]
    lines = [" ".join(command.arguments[4:]) for command in commands("vnet0", every)]
    made = [line for line in lines if line.startswith(("-N", "-A"))]
    assert made == [
        "-N libvirt-J-vnet0",
        "-N J-vnet0-arp-x",
        "-A libvirt-J-vnet0 -p 0x0806 -j J-vnet0-arp-x",
        "-A libvirt-J-vnet0 -j DROP",
        "-A J-vnet0-arp-x -j DROP",
        "-A PREROUTING -i vnet0 -j libvirt-J-vnet0",
    ]


def test_only_taking_away_and_what_all_interfaces_share_may_fail() -> None:
    for command in told(read("<rule action='drop' direction='inout'><tcp/></rule>")):
        words = command.arguments
        shared = "-N" in words and words[-1].startswith("libvirt-")
        assert command.may_fail == (shared or any(word in words for word in ("-D", "-F", "-X", "-L")))


@pytest.mark.parametrize("name", ["", "-j", "vnet+", "a b", "a/b", "x" * 16, "a\n", "ü"])
def test_an_interface_is_one_and_no_option(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name of one interface"):
        commands(name, [])


def test_an_interface_without_rules_has_only_the_old_taken_away() -> None:
    assert all(command.may_fail for command in commands("vnet0", []))
