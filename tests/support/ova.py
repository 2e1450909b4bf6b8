"""OVAs, made for tests."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping

NAMESPACE = "http://schemas.dmtf.org/ovf/envelope/1"


def description(disks: Mapping[str, int], *, extra: str = "", compression: str = "") -> bytes:
    """A description of disks by the names of their files, with their capacities in bytes."""
    packed = f' ovf:compression="{compression}"' if compression else ""
    files = "".join(f'<File ovf:href="{name}" ovf:id="file{at}"{packed}/>' for at, name in enumerate(disks))
    lines = "".join(
        f'<Disk ovf:capacity="{size}" ovf:diskId="disk{at}" ovf:fileRef="file{at}" ovf:format="x"/>'
        for at, size in enumerate(disks.values())
    )
    space = f'xmlns="{NAMESPACE}" xmlns:ovf="{NAMESPACE}"'
    sections = f"<References>{files}{extra}</References><DiskSection>{lines}</DiskSection>"
    return f"<Envelope {space}>{sections}</Envelope>".encode()


def manifest(files: Mapping[str, bytes], algorithm: str = "sha256") -> bytes:
    """The digests of files."""
    lines = [
        f"{algorithm.upper()}({name})= {hashlib.new(algorithm, data).hexdigest()}\n" for name, data in files.items()
    ]
    return "".join(lines).encode()


def archive(files: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive of files, in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def ova(disks: Mapping[str, bytes], *, digests: bool = True) -> bytes:
    """An OVA with disks, each as large as its file."""
    files = {"machine.ovf": description({name: len(data) for name, data in disks.items()})}
    listed = files | dict(disks)
    return archive(files | ({"machine.mf": manifest(listed)} if digests else {}) | dict(disks))
