"""Documents beside the domain's that are refused, each for one thing that is wrong with it, and where that is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

RECORDED: Final = Path(__file__).parents[1] / "golden" / "refused-documents.txt"


def pool(type: str, source: str = "", *, name: str = "p", target: str = "<path>/p</path>", more: str = "") -> str:
    """A pool with something in it."""
    return f"<pool type='{type}'><name>{name}</name>{more}<source>{source}</source><target>{target}</target></pool>"


def volume(target: str = "", *, capacity: str = "<capacity>1</capacity>", name: str = "<name>v</name>") -> str:
    """A volume with something in it."""
    return f"<volume>{name}{capacity}<target>{target}</target></volume>"


def network(body: str = "", *, name: str = "n", bridge: str = "<bridge name='b'/>") -> str:
    """A network with something in it."""
    return f"<network><name>{name}</name>{bridge}{body}</network>"


def ip(inside: str = "", attributes: str = "address='192.0.2.1' netmask='255.255.255.0'") -> str:
    """An address of a network."""
    return f"<ip {attributes}>{inside}</ip>"


def dhcp(inside: str, attributes: str = "address='192.0.2.1' netmask='255.255.255.0'") -> str:
    """A network's DHCP."""
    return network(ip(f"<dhcp>{inside}</dhcp>", attributes))


def rule(match: str, attributes: str = "action='drop' direction='in'") -> str:
    """A filter with one rule."""
    return f"<filter name='f'><rule {attributes}>{match}</rule></filter>"


def snapshot(body: str, *, state: str = "<state>running</state>", name: str = "<name>s</name>") -> str:
    """A snapshot that is defined again."""
    return f"<domainsnapshot>{name}<creationTime>1</creationTime>{state}{body}</domainsnapshot>"


_HOST: Final = "<host name='h'/>"
_NAT_ADDRESS: Final = "<address start='192.0.2.1' end='192.0.2.2'/>"
_SIX: Final = "family='ipv6' address='2001:db8::1' prefix='64'"
_ENCRYPTION: Final = "<format type='qcow2'/><encryption format='luks'>{}</encryption>"

# By kind and what is wrong: the document, and the path that we name.
WRONG: Final[dict[str, tuple[str, str]]] = {
    "pool/unknown type": (pool("frob"), "/pool/@type"),
    "pool/no name": (pool("dir").replace("<name>p</name>", ""), "/pool/name"),
    "pool/slash in the name": (pool("dir", name="a/b"), "/pool/name"),
    "pool/bad uuid": (pool("dir", more="<uuid>1</uuid>"), "/pool/uuid"),
    "pool/no path": (pool("dir", target=""), "/pool/target/path"),
    "pool/fs without a device": (pool("fs"), "/pool/source/device"),
    "pool/unknown format": (pool("fs", "<device path='/d'/><format type='frob'/>"), "/pool/source/format/@type"),
    "pool/netfs without a host": (pool("netfs", "<dir path='/d'/>"), "/pool/source/host"),
    "pool/netfs without a directory": (pool("netfs", _HOST), "/pool/source/dir"),
    "pool/host without a name": (pool("netfs", "<host/><dir path='/d'/>"), "/pool/source/host[1]/@name"),
    "pool/bad port": (pool("netfs", "<host name='h' port='x'/><dir path='/d'/>"), "/pool/source/host[1]/@port"),
    "pool/protocol of another type": (
        pool("netfs", f"{_HOST}<dir path='/d'/><format type='cifs'/><protocol ver='3'/>"),
        "/pool/source/protocol/@ver",
    ),
    "pool/protocol with a comma": (
        pool("netfs", f"{_HOST}<dir path='/d'/><format type='nfs'/><protocol ver='3,4'/>"),
        "/pool/source/protocol/@ver",
    ),
    "pool/scsi without an adapter": (pool("scsi"), "/pool/source/adapter"),
    "pool/adapter without a type": (pool("scsi", "<adapter wwnn='1'/>"), "/pool/source/adapter"),
    "pool/adapter without wwpn": (pool("scsi", "<adapter type='fc_host' wwnn='1'/>"), "/pool/source/adapter"),
    "pool/bad wwn": (
        pool("scsi", "<adapter type='fc_host' wwnn='xyz' wwpn='10000000c9831b4b'/>"),
        "/pool/source/adapter/@wwnn",
    ),
    "pool/parent by half": (
        pool(
            "scsi",
            "<adapter type='fc_host' parent_wwnn='20000000c9831b4b' wwnn='20000000c9831b4b' wwpn='10000000c9831b4b'/>",
        ),
        "/pool/source/adapter/@parent_wwpn",
    ),
    "pool/adapter without name and parent": (pool("scsi", "<adapter type='scsi_host'/>"), "/pool/source/adapter"),
    "pool/rbd without a name": (pool("rbd", _HOST), "/pool/source/name"),
    "pool/auth without a secret": (
        pool("iscsi", f"{_HOST}<device path='d'/><auth type='chap' username='u'/>"),
        "/pool/source/auth",
    ),
    "pool/auth without a type": (
        pool("iscsi", f"{_HOST}<device path='d'/><auth username='u'><secret usage='s'/></auth>"),
        "/pool/source/auth/@type",
    ),
    "pool/secret without a name": (
        pool("iscsi", f"{_HOST}<device path='d'/><auth type='chap' username='u'><secret/></auth>"),
        "/pool/source/auth/secret",
    ),
    "pool/iscsi-direct without an initiator": (
        pool("iscsi-direct", f"{_HOST}<device path='d'/>"),
        "/pool/source/initiator/iqn",
    ),
    "pool/cow of another type": (
        pool("mpath", more="<features><cow state='yes'/></features>"),
        "/pool/features/cow",
    ),
    "pool/bad mode": (
        pool("dir", target="<path>/p</path><permissions><mode>9</mode></permissions>"),
        "/pool/target/permissions/mode",
    ),
    "pool/mode with more than permissions": (
        pool("dir", target="<path>/p</path><permissions><mode>04755</mode></permissions>"),
        "/pool/target/permissions/mode",
    ),
    "volume/no name": (volume(name=""), "/volume/name"),
    "volume/no capacity": (volume(capacity=""), "/volume/capacity"),
    "volume/bad capacity": (volume(capacity="<capacity>x</capacity>"), "/volume/capacity"),
    "volume/unknown unit": (volume(capacity="<capacity unit='frob'>1</capacity>"), "/volume/capacity/@unit"),
    "volume/too large": (volume(capacity="<capacity unit='EiB'>9</capacity>"), "/volume/capacity"),
    "volume/unknown format": (volume("<format type='frob'/>"), "/volume/target/format/@type"),
    "volume/bad compat": (volume("<format type='qcow2'/><compat>v3</compat>"), "/volume/target/compat"),
    "volume/unknown feature": (
        volume("<format type='qcow2'/><features><frob/></features>"),
        "/volume/target/features",
    ),
    "volume/secret without a type": (
        volume(_ENCRYPTION.format("<secret usage='s'/>")),
        "/volume/target/encryption/secret[1]/@type",
    ),
    "volume/secret twice named": (
        volume(_ENCRYPTION.format("<secret type='passphrase' usage='s' uuid='70a7eb15-6c34-ee9c-bf57-69e8e5ff3fb2'/>")),
        "/volume/target/encryption/secret[1]",
    ),
    "volume/ivgen without a cipher": (
        volume(_ENCRYPTION.format("<secret type='passphrase' usage='s'/><ivgen name='plain64'/>")),
        "/volume/target/encryption/ivgen",
    ),
    "network/no name": (network().replace("<name>n</name>", ""), "/network/name"),
    "network/slash in the name": (network(name="a/b"), "/network/name"),
    "network/bad mac": (network("<mac address='frob'/>"), "/network/mac/@address"),
    "network/multicast mac": (network("<mac address='01:00:00:00:00:01'/>"), "/network/mac/@address"),
    "network/unknown forwarding": (network("<forward mode='frob'/>"), "/network/forward/@mode"),
    "network/forwarding without an address": (network("<forward mode='nat'/>"), "/network/ip"),
    "network/two forwarding interfaces": (
        network(f"<forward mode='nat'><interface dev='a'/><interface dev='b'/></forward>{ip()}"),
        "/network/forward/interface[2]",
    ),
    "network/open with a device": (network(f"<forward mode='open' dev='a'/>{ip()}"), "/network/forward/@dev"),
    "network/interface twice": (
        network("<forward mode='vepa'><interface dev='a'/><interface dev='a'/></forward>", bridge=""),
        "/network/forward/interface[2]",
    ),
    "network/devices that disagree": (
        network("<forward mode='vepa' dev='b'><interface dev='a'/></forward>", bridge=""),
        "/network/forward/@dev",
    ),
    "network/nat of another mode": (
        network(f"<forward mode='route'><nat><port start='1024' end='2048'/></nat></forward>{ip()}"),
        "/network/forward/nat",
    ),
    "network/nat address without an end": (
        network(f"<forward><nat><address start='192.0.2.9'/></nat></forward>{ip()}"),
        "/network/forward/nat/address/@end",
    ),
    "network/nat range reversed": (
        network(f"<forward><nat><address start='192.0.2.9' end='192.0.2.3'/></nat></forward>{ip()}"),
        "/network/forward/nat/address",
    ),
    "network/nat ports reversed": (
        network(f"<forward><nat><port start='9' end='3'/></nat></forward>{ip()}"),
        "/network/forward/nat/port/@end",
    ),
    "network/bridge in private mode": (network("<forward mode='private'/>"), "/network/bridge/@name"),
    "network/stp in bridge mode": (
        network("<forward mode='bridge'/>", bridge="<bridge name='b' stp='on'/>"),
        "/network/bridge",
    ),
    "network/bridge and device": (network("<forward mode='bridge' dev='a'/>"), "/network/bridge/@name"),
    "network/mtu in bridge mode": (network("<forward mode='bridge'/><mtu size='9000'/>"), "/network/mtu/@size"),
    "network/no address": (network("<ip netmask='255.255.255.0'/>"), "/network/ip[1]/@address"),
    "network/bad address": (network("<ip address='frob'/>"), "/network/ip[1]/@address"),
    "network/IPv6 without its family": (network("<ip address='::1'/>"), "/network/ip[1]/@family"),
    "network/netmask of IPv6": (
        network("<ip family='ipv6' address='::1' netmask='255.0.0.0'/>"),
        "/network/ip[1]/@netmask",
    ),
    "network/netmask and prefix": (
        network("<ip address='192.0.2.1' netmask='255.255.255.0' prefix='24'/>"),
        "/network/ip[1]/@prefix",
    ),
    "network/long prefix": (network("<ip address='192.0.2.1' prefix='33'/>"), "/network/ip[1]/@prefix"),
    "network/tftp of IPv6": (network(ip("<tftp root='/t'/>", _SIX)), "/network/ip[1]/@tftp"),
    "network/range outside": (
        dhcp("<range start='192.0.2.9' end='192.0.3.9'/>"),
        "/network/ip[1]/dhcp/range[1]",
    ),
    "network/range from the network's address": (
        dhcp("<range start='192.0.2.0' end='192.0.2.9'/>"),
        "/network/ip[1]/dhcp/range[1]",
    ),
    "network/short lease": (
        dhcp("<range start='192.0.2.9' end='192.0.2.10'><lease expiry='1' unit='minutes'/></range>"),
        "/network/ip[1]/dhcp/range[1]/lease",
    ),
    "network/host without mac and name": (dhcp("<host ip='192.0.2.9'/>"), "/network/ip[1]/dhcp/host[1]"),
    "network/host without an address": (
        dhcp("<host mac='52:54:00:00:00:01'/>"),
        "/network/ip[1]/dhcp/host[1]/@ip",
    ),
    "network/host with a bad mac": (
        dhcp("<host mac='frob' ip='192.0.2.9'/>"),
        "/network/ip[1]/dhcp/host[1]/@mac",
    ),
    "network/host with mac of IPv6": (
        dhcp("<host mac='52:54:00:00:00:01' ip='2001:db8::9'/>", _SIX),
        "/network/ip[1]/dhcp/host[1]/@mac",
    ),
    "network/host with a bad name": (
        dhcp("<host name='-a' ip='192.0.2.9'/>"),
        "/network/ip[1]/dhcp/host[1]/@name",
    ),
    "network/forwarder of nothing": (network("<dns><forwarder/></dns>"), "/network/dns/forwarder[1]"),
    "network/DNS host without a name": (
        network("<dns><host ip='192.0.2.9'/></dns>"),
        "/network/dns/host[1]",
    ),
    "network/SRV port without a target": (
        network("<dns><srv service='s' protocol='tcp' port='1'/></dns>"),
        "/network/dns/srv[1]/@port",
    ),
    "network/SRV without a protocol": (network("<dns><srv service='s'/></dns>"), "/network/dns/srv[1]/@protocol"),
    "network/TXT name with a blank": (
        network("<dns><txt name='a b' value='v'/></dns>"),
        "/network/dns/txt[1]/@name",
    ),
    "network/records without DNS": (
        network("<dns enable='no'><txt name='a' value='v'/></dns>"),
        "/network/dns",
    ),
    "network/route to no network": (
        network(f"{ip()}<route address='192.0.9.1' prefix='24' gateway='192.0.2.9'/>"),
        "/network/route[1]/@address",
    ),
    "network/gateway out of reach": (
        network(f"{ip()}<route address='192.0.9.0' prefix='24' gateway='192.0.7.9'/>"),
        "/network/route[1]/@gateway",
    ),
    "network/route without a gateway": (
        network(f"{ip()}<route address='192.0.9.0' prefix='24'/>"),
        "/network/route[1]",
    ),
    "network/vlan without a tag": (network("<vlan trunk='yes'/>"), "/network/vlan"),
    "network/vlan that is no trunk": (
        network("<vlan trunk='no'><tag id='1'/><tag id='2'/></vlan>"),
        "/network/vlan/@trunk",
    ),
    "network/virtual port without a type": (network("<virtualport/>"), "/network/virtualport/@type"),
    "network/virtual port with an extra": (
        network("<virtualport type='802.1Qbh'><parameters managerid='1'/></virtualport>"),
        "/network/virtualport/parameters/@managerid",
    ),
    "network/peak without an average": (
        network("<bandwidth><inbound peak='1'/></bandwidth>"),
        "/network/bandwidth/inbound",
    ),
    "network/floor of a network": (
        network("<bandwidth><inbound average='1' floor='1'/></bandwidth>"),
        "/network/bandwidth/inbound/@floor",
    ),
    "network/PCI device twice": (
        network(
            "<forward mode='hostdev'><address type='pci' bus='3'/><address type='pci' bus='3'/></forward>", bridge=""
        ),
        "/network/forward/address[2]",
    ),
    "interface/unknown type": ("<interface type='frob' name='i'/>", "/interface/@type"),
    "interface/no name": ("<interface type='ethernet'/>", "/interface"),
    "interface/bridge without a bridge": ("<interface type='bridge' name='i'/>", "/interface/bridge"),
    "interface/bond without a bond": ("<interface type='bond' name='i'/>", "/interface/bond"),
    "interface/vlan without its interface": (
        "<interface type='vlan' name='i'><vlan tag='1'/></interface>",
        "/interface/vlan",
    ),
    "interface/large mtu": (
        "<interface type='ethernet' name='i'><mtu size='100001'/></interface>",
        "/interface/mtu/@size",
    ),
    "interface/unknown start": (
        "<interface type='ethernet' name='i'><start mode='frob'/></interface>",
        "/interface/start/@mode",
    ),
    "interface/monitor without a frequency": (
        "<interface type='bond' name='i'><bond><miimon/></bond></interface>",
        "/interface/bond/miimon",
    ),
    "secret/unknown use": ("<secret><usage type='frob'/></secret>", "/secret/usage/@type"),
    "secret/no use": ("<secret><usage/></secret>", "/secret/usage"),
    "secret/volume without a path": ("<secret><usage type='volume'/></secret>", "/secret/usage/volume"),
    "secret/ceph without a name": ("<secret><usage type='ceph'/></secret>", "/secret/usage/name"),
    "secret/iscsi without a target": ("<secret><usage type='iscsi'/></secret>", "/secret/usage/target"),
    "secret/bad ephemeral": ("<secret ephemeral='maybe'/>", "/secret/@ephemeral"),
    "nwfilter/no name": ("<filter/>", "/filter/@name"),
    "nwfilter/unknown chain": ("<filter name='f' chain='frob'/>", "/filter/@chain"),
    "nwfilter/priority too high": ("<filter name='f' chain='root' priority='1001'/>", "/filter/@priority"),
    "nwfilter/bad priority": ("<filter name='f' chain='root' priority='x'/>", "/filter/@priority"),
    "nwfilter/no action": (rule("", "direction='in'"), "/filter/rule[1]/@action"),
    "nwfilter/unknown action": (rule("", "action='frob' direction='in'"), "/filter/rule/@action"),
    "nwfilter/no direction": (rule("", "action='drop'"), "/filter/rule[1]/@direction"),
    "nwfilter/unknown direction": (rule("", "action='drop' direction='frob'"), "/filter/rule/@direction"),
    "nwfilter/reference to nothing": ("<filter name='f'><filterref/></filter>", "/filter/filterref[1]/@filter"),
    "nwfilter/bad address": (rule("<ip srcipaddr='frob'/>"), "/filter/rule/ip/@srcipaddr"),
    "nwfilter/bad mask": (rule("<ip srcipmask='255.0.255.0'/>"), "/filter/rule/ip/@srcipmask"),
    "nwfilter/large dscp": (rule("<tcp dscp='64'/>"), "/filter/rule/tcp/@dscp"),
    "nwfilter/large port": (rule("<tcp dstportstart='65536'/>"), "/filter/rule/tcp/@dstportstart"),
    "nwfilter/ports without a protocol": (rule("<ip dstportstart='80'/>"), "/filter/rule[1]/ip"),
    "nwfilter/bad state": (rule("<tcp state='FROB'/>"), "/filter/rule/tcp/@state"),
    "nwfilter/bad flags": (rule("<tcp flags='SYN'/>"), "/filter/rule/tcp/@flags"),
    "nwfilter/bad variable": (rule("<tcp srcipaddr='$A[x]'/>"), "/filter/rule/tcp/@srcipaddr"),
    "nwfilter/unknown opcode": (rule("<arp opcode='frob'/>"), "/filter/rule/arp/@opcode"),
    "snapshot/no name": (snapshot("", name=""), "/domainsnapshot/name"),
    "snapshot/no state": (snapshot("", state=""), "/domainsnapshot/state"),
    "snapshot/unknown state": (snapshot("", state="<state>frob</state>"), "/domainsnapshot/state"),
    "snapshot/no time": (
        snapshot("").replace("<creationTime>1</creationTime>", ""),
        "/domainsnapshot/creationTime",
    ),
    "snapshot/memory by hand": (snapshot("<memory snapshot='manual'/>"), "/domainsnapshot/memory/@snapshot"),
    "snapshot/memory without a file": (snapshot("<memory snapshot='external'/>"), "/domainsnapshot/memory/@file"),
    "snapshot/memory in a file and within": (
        snapshot("<memory snapshot='internal' file='/m'/>"),
        "/domainsnapshot/memory/@file",
    ),
    "snapshot/memory in a relative file": (snapshot("<memory file='m'/>"), "/domainsnapshot/memory/@file"),
    "snapshot/memory of what is off": (
        snapshot("<memory snapshot='internal'/>", state="<state>shutoff</state>"),
        "/domainsnapshot/memory",
    ),
    "snapshot/overlay in a pool": (
        snapshot("<disks><disk name='vda' type='volume'><source pool='p' volume='v'/></disk></disks>"),
        "/domainsnapshot/disks/disk[1]/@type",
    ),
    "snapshot/relative overlay": (
        snapshot("<disks><disk name='vda'><source file='o'/></disk></disks>"),
        "/domainsnapshot/disks/disk[1]/source/@file",
    ),
    "snapshot/unknown format": (
        snapshot("<disks><disk name='vda'><driver type='frob'/></disk></disks>"),
        "/domainsnapshot/disks/disk/driver/@type",
    ),
    "pool/parent without a type": (
        pool("scsi", "<adapter><parentaddr unique_id='1'><address domain='0' bus='0' slot='1' function='0'/>"
                     "</parentaddr></adapter>"), "/pool/source/adapter"),
    "pool/parent without an address": (
        pool("scsi", "<adapter type='scsi_host'><parentaddr unique_id='1'/></adapter>"),
        "/pool/source/adapter/parentaddr"),
    "pool/parent without a number": (
        pool("scsi", "<adapter type='scsi_host'><parentaddr><address domain='0' bus='0' slot='1' function='0'/>"
                     "</parentaddr></adapter>"), "/pool/source/adapter/parentaddr"),
    "pool/adapter with name and parent": (
        pool("scsi", "<adapter type='scsi_host' name='scsi_host1'><parentaddr unique_id='1'>"
                     "<address domain='0' bus='0' slot='1' function='0'/></parentaddr></adapter>"),
        "/pool/source/adapter"),
    "volume/secret of another type": (
        volume(_ENCRYPTION.format("<secret type='ceph' usage='a'/>")), "/volume/target/encryption/secret[1]/@type"),
    "volume/cipher without a size": (
        volume(_ENCRYPTION.format("<secret type='passphrase' usage='a'/><cipher name='aes'/>")),
        "/volume/target/encryption/cipher"),
    "network/DNS host without an address": (
        network("<dns><host><hostname>h</hostname></host></dns>"), "/network/dns/host[1]"),
    "network/DNS host with a bad address": (
        network("<dns><host ip='frob'><hostname>h</hostname></host></dns>"), "/network/dns/host[1]"),
    "network/SRV with a long service": (
        network(f"<dns><srv service='{'s' * 483}' protocol='tcp'/></dns>"), "/network/dns/srv[1]/@service"),
    "network/SRV with a bad service": (
        network("<dns><srv service='a b' protocol='tcp'/></dns>"), "/network/dns/srv[1]/@service"),
    "network/SRV with a bad protocol": (
        network("<dns><srv service='s' protocol='t c'/></dns>"), "/network/dns/srv[1]/@protocol"),
    "network/TXT without a value": (network("<dns><txt name='a'/></dns>"), "/network/dns/txt[1]/@value"),
    "network/TXT without a name": (network("<dns><txt value='a'/></dns>"), "/network/dns/txt[1]/@name"),
    "network/IPv4 in the other family": (
        network("<ip family='ipv6' address='192.0.2.1'/>"), "/network/ip[1]/@family"),
    "network/netmask of the other family": (
        network("<ip address='192.0.2.1' netmask='ffff::'/>"), "/network/ip[1]/@netmask"),
    "network/host with a bad id": (dhcp("<host id='a b' name='h' ip='2001:db8::9'/>", _SIX),
                                   "/network/ip[1]/dhcp/host[1]/@id"),
    "network/host with a bad address": (
        dhcp("<host name='h' ip='frob'/>"), "/network/ip[1]/dhcp/host[1]/@ip"),
    "network/host with a group's mac": (
        dhcp("<host mac='01:00:00:00:00:01' ip='192.0.2.9'/>"), "/network/ip[1]/dhcp/host[1]/@mac"),
    "network/nat twice": (
        network(f"<forward mode='nat'><nat ipv6='yes'/><nat ipv6='no'/></forward>{ip()}"), "/network/forward/nat"),
    "network/device and addresses": (
        network("<forward mode='passthrough' dev='a'><address type='pci' domain='0' bus='0' slot='1' function='0'/>"
                "</forward>", bridge=""), "/network/forward/@dev"),
    "network/nat address twice": (
        network(f"<forward mode='nat'><nat>{_NAT_ADDRESS * 2}</nat></forward>{ip()}"),
        "/network/forward/nat/address[2]"),
    "network/nat to IPv6": (
        network(f"<forward mode='nat'><nat><address start='::1' end='::2'/></nat></forward>{ip()}"),
        "/network/forward/nat/address/@start"),
    "network/nat to nothing": (
        network(f"<forward mode='nat'><nat><address start='frob' end='192.0.2.2'/></nat></forward>{ip()}"),
        "/network/forward/nat/address/@start"),
    "network/two functions": (
        network("<forward mode='hostdev'><pf dev='a'/><pf dev='b'/></forward>", bridge=""), "/network/forward/pf[2]"),
    "network/vlan native twice": (
        network("<forward mode='bridge'/><vlan><tag id='1' nativeMode='tagged'/><tag id='2' nativeMode='tagged'/>"
                "</vlan><virtualport type='openvswitch'/>"), "/network/vlan"),
    "network/vlan native and no trunk": (
        network("<forward mode='bridge'/><vlan trunk='no'><tag id='1' nativeMode='tagged'/></vlan>"
                "<virtualport type='openvswitch'/>"), "/network/vlan/@trunk"),
    "network/vlan without an id": (network("<forward mode='bridge'/><vlan><tag/></vlan>"), "/network/vlan/tag"),
    "network/virtual port with a long profile": (
        network(f"<forward mode='bridge'/><virtualport type='802.1Qbh'><parameters profileid='{'p' * 40}'/>"
                "</virtualport>"), "/network/virtualport/parameters/@profileid"),
    "network/virtual port of no type": (
        network("<forward mode='bridge'/><virtualport type='none'/>"), "/network/virtualport/@type"),
    "network/bandwidth of a class": (
        network(f"<bandwidth classID='1'><inbound average='1'/></bandwidth>{ip()}"), "/network/bandwidth/@classID"),
    "network/bandwidth of nothing": (
        network(f"<bandwidth><inbound peak='1'/></bandwidth>{ip()}"), "/network/bandwidth/inbound"),
    "network/floor of what goes out": (
        network(f"<bandwidth><outbound average='1' floor='1'/></bandwidth>{ip()}"),
        "/network/bandwidth/outbound/@floor"),
    "network/route without an address": (network(f"{ip()}<route gateway='192.0.2.9'/>"), "/network/route[1]"),
    "network/route of the other family": (
        network(f"{ip()}<route address='2001:db8::' prefix='64' gateway='192.0.2.9'/>"), "/network/route[1]/@address"),
    "network/route with two lengths": (
        network(f"{ip()}<route address='10.0.0.0' prefix='8' netmask='255.0.0.0' gateway='192.0.2.9'/>"),
        "/network/route[1]"),
    "network/route with netmask of IPv6": (
        network(f"{ip('', _SIX)}<route family='ipv6' address='2001:db9::' netmask='255.0.0.0' gateway='2001:db8::9'/>"),
        "/network/route[1]/@netmask"),
    "network/route with a long prefix": (
        network(f"{ip()}<route address='10.0.0.0' prefix='33' gateway='192.0.2.9'/>"), "/network/route[1]/@prefix"),
    "checkpoint/slash in the name": (
        "<domaincheckpoint><name>a/b</name><creationTime>1</creationTime></domaincheckpoint>",
        "/domaincheckpoint/name"),
    "checkpoint/no name": (
        "<domaincheckpoint><creationTime>1</creationTime></domaincheckpoint>",
        "/domaincheckpoint/name",
    ),
    "checkpoint/no time": ("<domaincheckpoint><name>c</name></domaincheckpoint>", "/domaincheckpoint/creationTime"),
}  # fmt: skip
REFUSED: Final[dict[str, str]] = {name: xml for name, (xml, _) in WRONG.items()}
# Ours is refused in other words; how it begins says the kind of error, which is the same.
OTHER_WORDS: Final = {
    "pool/bad uuid", "pool/bad mode", "volume/bad capacity", "interface/no name",
    "interface/vlan without its interface", "interface/monitor without a frequency",
    "nwfilter/reference to nothing", "snapshot/unknown state", "snapshot/unknown format",
    "network/device and addresses", "checkpoint/slash in the name",
}  # fmt: skip


def recorded() -> dict[str, str]:
    """Why libvirt refuses them."""
    return dict(line.split("\t") for line in RECORDED.read_text().splitlines())
