"""Images whose headers lie: truncated, overflowing, looping, naming files outside themselves."""

from __future__ import annotations

import struct
from typing import Final

_HEADER = ">4sIQIIQIIQQIIQQQQII"
_NAMES = (
    "magic", "version", "backing_offset", "backing_size", "cluster_bits", "size", "crypt", "l1_size", "l1_offset",
    "refcount_offset", "refcount_clusters", "snapshots", "snapshots_offset", "incompatible", "compatible", "autoclear",
    "refcount_order", "header_length",
)  # fmt: skip
_FINE = {
    "magic": b"QFI\xfb", "version": 3, "backing_offset": 0, "backing_size": 0, "cluster_bits": 16, "size": 1 << 20,
    "crypt": 0, "l1_size": 1, "l1_offset": 0x30000, "refcount_offset": 0x10000, "refcount_clusters": 1, "snapshots": 0,
    "snapshots_offset": 0, "incompatible": 0, "compatible": 0, "autoclear": 0, "refcount_order": 4,
    "header_length": 104,
}  # fmt: skip
CLUSTERS = bytes(4 * 65536)
# Fields of a qcow2 header that lie, by the name of their image.
_BROKEN: Final[dict[str, dict[str, int]]] = {
    "size-max": {"size": 2**64 - 1},
    "size-over": {"size": 2**63 - 512},
    "size-zero": {"size": 0},
    "clusters-0": {"cluster_bits": 0},
    "clusters-31": {"cluster_bits": 31},
    "clusters-64": {"cluster_bits": 64},
    "clusters-max": {"cluster_bits": 2**32 - 1},
    "version-0": {"version": 0},
    "version-1": {"version": 1},
    "version-4": {"version": 4},
    "header-0": {"header_length": 0},
    "header-odd": {"header_length": 105},
    "header-max": {"header_length": 2**32 - 1},
    "incompatible": {"incompatible": 2**63},
    "data-file": {"incompatible": 4},
    "encrypted": {"crypt": 2},
    "encrypted-what": {"crypt": 7},
    "l1-max": {"l1_size": 2**32 - 1, "l1_offset": 2**63},
    "l1-far": {"l1_offset": 2**62},
    "refcounts-max": {"refcount_clusters": 2**32 - 1, "refcount_offset": 2**63},
    "refcount-order": {"refcount_order": 2**32 - 1},
    "snapshots-max": {"snapshots": 2**32 - 1, "snapshots_offset": 8},
    "backing-long": {"backing_offset": 512, "backing_size": 2000},
    "backing-max": {"backing_offset": 512, "backing_size": 2**32 - 1},
    "backing-far": {"backing_offset": 2**63, "backing_size": 10},
    "backing-wraps": {"backing_offset": 2**64 - 4, "backing_size": 10},
}
# Images by their name, and what each names as its backing file.
_REFERENCES: Final = {
    "names-itself": b"names-itself",
    "names-shadow": b"/etc/shadow",
    "names-above": b"../../../../etc/passwd",
    "names-json": b'json:{"file":{"filename":"/etc/shadow"}}',
    "names-nbd": b"nbd://127.0.0.1:1/none",
    "names-device": b"/dev/zero",
    "names-nul": b"ab\0cd",
    "names-bytes": b"\xff\xfe\xfd",
    "names-control": b"a\nb\x1b[2J<c>",
    "names-missing": b"nosuch",
    "names-loop": b"loops-back",
    "loops-back": b"names-loop",
}


def header(**fields: int) -> bytes:
    """A qcow2 header of version 3 that is fine but for ``fields``."""
    values = {**_FINE, **fields}
    return struct.pack(_HEADER, *(values[name] for name in _NAMES))


def naming(backing: bytes, **fields: int) -> bytes:
    """A qcow2 image over ``backing``."""
    head = header(backing_offset=512, backing_size=len(backing), **fields)
    return head + bytes(512 - len(head)) + backing + CLUSTERS


def _descriptor(*lines: bytes) -> bytes:
    """A VMware disk that is what its descriptor names."""
    head = (b"# Disk DescriptorFile", b"version=1", b"CID=1", b"parentCID=2", b'createType="vmfs"')
    return b"\n".join((*head, *lines, b""))


def images() -> dict[str, bytes]:
    """By name: what a directory of volumes may hold at worst."""
    good = header() + CLUSTERS
    found = {f"truncated-{length:03}": good[:length] for length in (0, 1, 3, 4, 7, 8, 20, 71, 72, 100, 103, 104, 512)}
    found |= {name: header(**fields) + CLUSTERS for name, fields in _BROKEN.items()}
    found |= {name: naming(backing) for name, backing in _REFERENCES.items()}
    extension = struct.pack(">II", 0xE2792ACA, 2**32 - 1)
    found["extension-max"] = header() + extension + CLUSTERS
    found["extension-chain"] = header() + struct.pack(">II", 0x12345678, 0) * 20_000 + CLUSTERS
    other = {
        "iso": bytes(32769) + b"CD001\x01" + bytes(2048),
        "vmdk": b"KDMV" + bytes(8) + b"\xff" * 8 + bytes(2000),
        "vdi": bytes(64) + b"\x7f\x10\xda\xbe" + bytes(300) + b"\xff" * 200,
        "vpc": b"conectix" + bytes(40) + b"\xff" * 100,
        "qed": b"QED\0" + bytes(44) + b"\xff" * 100,
        "qcow": b"QFI\xfb\0\0\0\1" + bytes(16) + b"\xff" * 100,
        "short-vmdk": b"KDMV",
        "vmdk-shadow": _descriptor(b'RW 8 FLAT "/etc/shadow" 0'),
        "vmdk-above": _descriptor(b'RW 8 VMFS "../../../../etc/passwd"'),
        "vmdk-json": _descriptor(b'RW 8 FLAT "json:{}" 0'),
        "vmdk-itself": _descriptor(b'RW 8 SPARSE "vmdk-itself"'),
        "vmdk-many": _descriptor(b'RW 1 FLAT "x" 0\n' * 20_000),
        "vmdk-huge": _descriptor(b'RW 9007199254740991 FLAT "x" 9007199254740991\n' * 100),
        "vmdk-parent": _descriptor(b'RW 8 VMFS "x"', b'parentFileNameHint="/etc/shadow"'),
        "vmdk-parent-itself": _descriptor(b'RW 8 VMFS "x"', b'parentFileNameHint="vmdk-parent-itself"'),
        "text": b"hello\n",
        "zeroes": bytes(100_000),
    }
    return {**found, **other}
