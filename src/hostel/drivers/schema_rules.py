"""What libvirt's schemas ask for beyond what its parsers do: held against documents that are to be validated.

Places are XPath expressions. A value is held against a pattern; an element needs what is listed, ``a|b`` meaning one
of the two.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final, NamedTuple

from lxml import etree

from hostel.codec.xmltext import path_of
from hostel.errors import ModelError

_UUID: Final = r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_ABSOLUTE: Final = r"(/|[a-zA-Z]:\\).+"
_NAME: Final = r"[^/\n]+"
_FILE: Final = r"[a-zA-Z0-9_\-][a-zA-Z0-9_\-.]*"
_WORD: Final = r"[a-zA-Z0-9_+\-]+"
_DEVICE: Final = r"[a-zA-Z0-9_.\-\\:/]+"
_MAC: Final = r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}"
_WWN: Final = r"(0x)?[0-9a-fA-F]{16}"
_NUMBER: Final = r"\s*\+?[0-9]+\s*"
_UNIT: Final = r"([bB]([yY][tT][eE][sS]?)?)|([kKmMgGtTpPeE]([iI]?[bB])?)"
_TIME: Final = r"[0-9]+(\.[0-9]{0,9})?"
_IDENTITY: Final = rf"-1|{_NUMBER}"
_TARGET: Final = "(ioemu:)?(fd|hd|sd|vd|xvd|ubd)[a-zA-Z0-9_]+"
_DISK: Final = rf"{_TARGET}|{_ABSOLUTE}"
_HOST: Final = r"[a-zA-Z0-9.:\-]+"
_VARIABLE: Final = r"[a-zA-Z0-9_]+"
_PRIORITY: Final = r"\s*[+-]?0*([0-9]{1,3}|1000)\s*"
_BOOLEAN: Final = "yes|no|true|false|1|0"
# What is said of patterns that are no list of words.
_SAID: Final = {
    _UUID: "a UUID",
    _ABSOLUTE: "an absolute path",
    _NAME: "a name without a slash",
    _FILE: "the name of a file: letters, digits, '_', '-' and '.'",
    _WORD: "a name of letters, digits, '_', '+' and '-'",
    _DEVICE: "the name of a device",
    _MAC: "a hardware address, such as 52:54:00:12:34:56",
    _WWN: "a world-wide name: 16 hexadecimal digits",
    _NUMBER: "a whole number",
    _IDENTITY: "a whole number, or -1",
    _UNIT: "a unit, such as bytes, KiB or GB",
    _TIME: "seconds since 1970",
    _TARGET: "the name of a disk, such as vda",
    _HOST: "the name or the address of a host",
    _DISK: "the name of a disk, such as vda, or an absolute path",
    _VARIABLE: "a name of letters, digits and '_'",
    _PRIORITY: "a number from -1000 to 1000",
}
_WORDS: Final = re.compile(r"[\w\-|]+")


class _Value(NamedTuple):
    """Attributes or elements, and the pattern of what may be in them."""

    place: str
    pattern: str


class _Needs(NamedTuple):
    """Elements, and what each has to have."""

    place: str
    names: str


_Rule = _Value | _Needs
_REFERENCE: Final[tuple[_Rule, ...]] = (
    _Needs("//filterref", "@filter"),
    _Value("//filterref/@filter", r"[a-zA-Z0-9_.\-]+"),
    _Needs("//filterref/parameter", "@name @value"),
    _Value("//filterref/parameter/@name", _VARIABLE),
    _Value("//filterref/parameter/@value", r"[a-zA-Z0-9_.:]+"),
)
# Where images of disks are, and how they are encrypted.
_ENCRYPTED: Final[tuple[_Rule, ...]] = (
    _Needs("//encryption[cipher or ivgen]", "secret cipher ivgen"),
    _Needs("//encryption/secret", "@type @uuid|@usage"),
    _Needs("//encryption/cipher", "@name @size"),
    _Needs("//encryption/cipher[@hash]", "@mode"),
    _Needs("//encryption/cipher[@mode]", "@hash"),
)
_SOURCES: Final[tuple[_Rule, ...]] = (
    _Value("//disks/disk/source/@*[name() = 'file' or name() = 'dev']", _ABSOLUTE),
    _Needs("//disks/disk[source/@dev]", "@type"),
    _Needs("//disks/disk[@type='block']/source", "@dev"),
    _Needs("//disks/disk[@type='network']", "source"),
    _Needs("//disks/disk[@type='network']/source", "@protocol"),
    _Needs("//disks/disk/source[@protocol!='nbd' and @protocol!='rbd']", "@name"),
    _Needs("//disks/disk/source[@protocol!='rbd']", "host"),
    _Needs("//disks/disk/source/host", "@name|@socket"),
    _Needs("//disks/disk/source/host[@transport='unix']", "@socket"),
    _Needs("//disks/disk/source/host[@socket]", "@transport"),
    _Value("//disks/disk/source/host/@name", _HOST),
    _Value("//disks/disk/source/host/@port", _IDENTITY),
    _Value("//disks/disk/source/host/@socket", _ABSOLUTE),
    _Needs("//disks/disk/source/slices", "slice"),
    _Needs("//disks/disk/source/slices/slice", "@type"),
    _Value("//disks/disk/source/snapshot/@name", _WORD),
    _Value("//disks/disk/source/config/@file", _ABSOLUTE),
    _Needs("//disks/disk/source/auth", "secret"),
    _Value("//disks/disk/source/auth/@username", _WORD),
    _Needs("//disks/disk/source/auth/secret", "@type @uuid|@usage"),
    _Needs("//disks/disk/source/initiator", "iqn"),
    _Needs("//disks/disk/source/cookies", "cookie"),
    _Value("//disks/disk/source/cookies/cookie/@name", "[!#$%&'*+\\-.0-9A-Z\\^_`a-z|~]+"),
    _Value("//disks/disk/source/cookies/cookie", r"\"?[!#$%&'()*+\-./0-9:>=<?@A-Z\^_`\[\]a-z|~]+\"?"),
    _Needs("//disks/disk/source[@protocol='nfs']", "identity"),
    _Value("//disks/disk/source/identity/@*", r"[+]?[0-9]+|[a-zA-Z0-9_.+\-]+"),
    _Needs("//disks/disk/source/seclabel[@relabel='yes']", "label"),
    _Needs("//disks/disk/source/seclabel[not(label)]", "@relabel|@labelskip"),
)
_STORED: Final[tuple[_Rule, ...]] = (
    *(
        _Value(f"//{place}/{name}", pattern)
        for place in ("target", "backingStore")
        for name, pattern in (
            ("permissions/mode", "[0-7]+"),
            ("permissions/owner", _IDENTITY),
            ("permissions/group", _IDENTITY),
            ("timestamps/atime", _TIME),
            ("timestamps/btime", _TIME),
            ("timestamps/ctime", _TIME),
            ("timestamps/mtime", _TIME),
        )
    ),
)
RULES: Final[dict[str, tuple[_Rule, ...]]] = {
    "backup": (
        _Needs("/domainbackup[@mode='pull']", "server"),
        _Needs("/domainbackup[@mode='pull']/disks/disk[@type='block']", "scratch"),
        _Needs("/domainbackup[server]", "@mode"),
        _Value("/domainbackup[server]/@mode", "pull"),
        _Needs("/domainbackup/server[@transport='unix']", "@socket"),
        _Needs("/domainbackup/server[not(@transport='unix')]", "@name"),
        _Value("/domainbackup/server/@name", _HOST),
        _Value("/domainbackup/server/@socket", _ABSOLUTE),
        _Needs("/domainbackup/disks", "disk"),
        _Value("/domainbackup/disks/disk/@name", _TARGET),
        _Value("/domainbackup/disks/disk[@incremental]/@backupmode", "incremental"),
        _Value("/domainbackup/disks/disk/@type", "file|block"),
        _Needs("/domainbackup/disks/disk/driver", "@type"),
        _Value("/domainbackup[@mode='pull']/disks/disk/driver/@type", "qcow2"),
        _Needs("/domainbackup/disks/disk[not(@type='block')]/*[self::target or self::scratch]", "@file"),
        _Needs("/domainbackup/disks/disk[@type='block']/*[self::target or self::scratch]", "@dev"),
        _Value("/domainbackup/disks/disk/*/@*[name() = 'file' or name() = 'dev']", _ABSOLUTE),
        _Needs("//seclabel[@relabel='yes']", "label"),
        _Needs("//seclabel[not(label)]", "@relabel|@labelskip"),
        _Needs("//encryption", "@format secret"),
        _Value("//encryption/@format", "luks"),
        *_ENCRYPTED,
    ),
    "checkpoint": (
        _Value("/domaincheckpoint/name", _FILE),
        _Value("/domaincheckpoint/creationTime", _NUMBER),
        _Needs("/domaincheckpoint/parent", "name"),
        _Value("/domaincheckpoint/parent/name", _FILE),
        _Needs("/domaincheckpoint/disks", "disk"),
        _Value("/domaincheckpoint/disks/disk/@name", _DISK),
        _Value("/domaincheckpoint/disks/disk[@bitmap or @size]/@checkpoint", "bitmap"),
    ),
    "secret": (
        _Value("/secret/uuid", _UUID),
        _Needs("/secret/usage", "@type"),
        _Needs("/secret/usage[@type='volume']", "volume"),
        _Needs("/secret/usage[@type='ceph' or @type='tls' or @type='vtpm']", "name"),
        _Needs("/secret/usage[@type='iscsi']", "target"),
        _Value("/secret/usage/volume", _ABSOLUTE),
        _Value("/secret/usage/*[self::name or self::target]", _NAME),
    ),
    "network filter": (
        _Needs("/filter", "@name"),
        _Value("/filter/@name", _WORD),
        _Value("/filter/uuid", _UUID),
        _Value("/filter/@chain", r"root|(mac|vlan|stp|arp|rarp|ipv4|ipv6)[a-zA-Z0-9_.:\-]*"),
        _Value("/filter/@priority", _PRIORITY),
        _Needs("/filter/rule", "@action @direction"),
        _Value("/filter/rule/@priority", _PRIORITY),
        _Value("/filter/rule/@statematch", "[Ff][Aa][Ll][Ss][Ee]|0"),
        _Value("/filter/rule/*/@match", "yes|no"),
        _Value("/filter/rule/*/@gratuitous", _BOOLEAN),
        _Needs("/filter/rule/*[@ipset]", "@ipsetflags"),
        _Needs("/filter/rule/*[@ipsetflags]", "@ipset"),
        *_REFERENCE,
    ),
    "network filter binding": (
        _Needs("/filterbinding", "owner portdev mac filterref"),
        _Needs("/filterbinding/owner", "name uuid"),
        _Value("/filterbinding/owner/uuid", _UUID),
        _Value("/filterbinding/mac/@address", _MAC),
        *_REFERENCE,
    ),
    "node device": (
        _Needs("/device", "name"),
        _Needs("/device/parent[@wwnn]", "@wwpn"),
        _Needs("/device/parent[@wwpn]", "@wwnn"),
        _Value("/device/parent/@*", _WWN),
        _Needs("/device/driver", "name"),
        _Needs("/device/capability[@type='system']", "hardware firmware"),
        _Value("/device/capability[@type='pci']/class", "0x[0-9a-fA-F]{6}"),
        _Value(
            "/device/capability[@type='pci']/capability/@type",
            "phys_function|virt_functions|mdev_types|vpd|pci-bridge|cardbus-bridge",
        ),
        _Needs("/device/capability[@type='pci']/iommuGroup", "address"),
        _Needs("//capability//address[@*]", "@domain @bus @slot @function"),
        _Value("//capability[@type='net']/address", _MAC),
        _Needs("//capability[@type='mdev_types']", "type"),
        _Value("//deviceAPI", "vfio-pci|vfio-ccw|vfio-ap"),
        _Value("//vendor_field/@index", "[0-9A-Z]"),
        _Value("//system_field/@index", "[0-9A-Z]"),
        _Needs("//capability[@type='scsi_host']", "host"),
        _Value("//capability[@type='scsi_host']/*[self::host or self::unique_id]", _NUMBER),
        _Needs("//capability[@type='fc_host']", "wwnn wwpn"),
        _Value("//capability/*[self::wwnn or self::wwpn or self::fabric_wwn]", _WWN),
        _Needs("//capability[@type='vport_ops']", "max_vports vports"),
        _Value("//capability[@type='vport_ops']/*", _NUMBER),
        _Value("/device/capability[@type='storage']/block", _ABSOLUTE),
        _Needs("/device/capability[@type='storage']", "size|capability[@type='removable']"),
        _Needs("//capability[@type='removable']", "media_available media_size"),
        _Value("//media_available", "[01]"),
        _Needs("//*[logical_block_size]", "num_blocks"),
        _Needs("//*[num_blocks]", "logical_block_size"),
        _Value("//*[self::size or self::logical_block_size or self::num_blocks]", _NUMBER),
        _Value("/device/capability[@type='mdev']/uuid", _UUID),
        _Value("/device/capability[@type='vdpa']/chardev", _ABSOLUTE),
    ),
    "volume": (
        _Needs("/volume", "name target"),
        _Value("/volume/name", _NAME),
        *(_Value(f"/volume/{name}/@unit", _UNIT) for name in ("capacity", "allocation", "physical")),
        _Value("/volume/target/clusterSize/@unit", _UNIT),
        _Value("/volume/source/device/@path", _ABSOLUTE),
        _Value("/volume/*[self::capacity or self::allocation]", _NUMBER),
        _Value("/volume/*/format/@type", r"[a-z0-9+\-]+"),
        _Value("/volume/target/compat", r"[0-9]+\.[0-9]+"),
        _Needs("/volume/backingStore", "path"),
        _Value("/volume/backingStore/path", _ABSOLUTE),
        *_STORED,
        *_ENCRYPTED,
    ),
    "snapshot": (
        _Value("/domainsnapshot/state", ".+"),
        _Value("/domainsnapshot/active", "[01]"),
        _Value("/domainsnapshot/disks/disk/driver/metadata_cache/max_size/@unit", _UNIT),
        _Needs("/domainsnapshot/memory", "@snapshot|@file"),
        _Needs("/domainsnapshot/memory[@snapshot='external']", "@file"),
        _Value("/domainsnapshot/memory/@file", _ABSOLUTE),
        _Value("/domainsnapshot/disks/disk/@name", _DISK),
        *_ENCRYPTED,
        *_SOURCES,
    ),
    "processor": (
        _Value("/cpu/arch", r"\w+"),
        _Value("/cpu/model/@vendor_id", "[^,]{12}"),
        _Value("//feature/@name", r"[a-zA-Z0-9\-_.]+"),
        _Needs("/cpu[not(arch)]/feature", "@policy"),
        _Needs("/cpu/numa[not(interconnects)]", "cell"),
        _Value("//cell/@unit", _UNIT),
        _Needs("//distances", "sibling"),
        _Needs("//cell/cache", "size line"),
        _Needs("//cell/cache/*", "@unit"),
        _Value("//cell/cache/*/@unit", _UNIT),
        _Needs("//interconnects/bandwidth", "@unit"),
        _Value("//interconnects/bandwidth/@unit", _UNIT),
        _Value("/cpu/pages/@unit", _UNIT),
        _Needs("/cpu/signature", "@model @stepping"),
        _Needs("/cpu/counter", "@scaling"),
    ),
    "network port": (
        _Needs("/networkport", "uuid owner mac"),
        _Needs("/networkport/owner", "name uuid"),
        _Value("//uuid", _UUID),
        _Value("/networkport/mac/@address", _MAC),
        _Value("/networkport/group", _DEVICE),
        _Needs("/networkport/rxfilters", "@trustGuest"),
        _Needs("/networkport/virtualport[@type='midonet']", "parameters"),
        _Needs("/networkport/virtualport[@type='midonet']/parameters", "@interfaceid"),
        _Needs("/networkport/vlan", "tag"),
        _Needs("/networkport/plug[@type='bridge' or @type='network']", "@bridge"),
        _Needs("/networkport/plug[@type='direct']", "@dev @mode"),
        _Needs("/networkport/plug[@type='hostdev-pci']", "address"),
        _Value("/networkport/plug/@*[name() = 'bridge' or name() = 'dev']", _DEVICE),
    ),
}


def check_rules(root: Any, kind: str) -> None:
    """Hold a document against the rules of its kind.

    Raises:
        ModelError: one is broken; the path says where.
    """
    for rule in RULES.get(kind, ()):
        for found in _xpath(rule.place)(root):
            if isinstance(rule, _Value):
                _check_value(found, rule.pattern)
            else:
                _check_needs(found, rule.names)


def _check_value(found: Any, pattern: str) -> None:
    if isinstance(found, str):
        value, parent = str(found), found.getparent()  # type: ignore[attr-defined]  # lxml's text knows its place
        path = f"{path_of(parent)}/@{found.attrname}"  # type: ignore[attr-defined]
    else:
        value, path = found.text or "", path_of(found)
    if not re.fullmatch(pattern, value):
        raise ModelError(path, f"'{value}' is not {_spoken(pattern)}")


def _spoken(pattern: str) -> str:
    if _WORDS.fullmatch(pattern):
        return f"one of {', '.join(pattern.split('|'))}"
    return _SAID.get(pattern) or f"of the form {pattern}"


def _check_needs(found: Any, names: str) -> None:
    for name in names.split():
        if not any(_xpath(each)(found) for each in name.split("|")):
            wanted = " or ".join(f"attribute {each[1:]}" if each[0] == "@" else f"<{each}>" for each in name.split("|"))
            raise ModelError(path_of(found), f"there has to be {wanted}")


@functools.cache
def _xpath(place: str) -> Any:
    return etree.XPath(place)
