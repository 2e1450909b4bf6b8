"""Documents given to libvirt's API one by one, each for an object that is taken away again.

It runs on libvirt-python and on our module alike; ``python given_documents.py CALL URI`` reads documents as JSON, and
gives each to libvirt.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"  # which Debian's python3-libvirt is for
UUID = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
# Kept with what is printed of it, refused with the text and the code, or the end of who was asked.
Answer = tuple[str, str, int]

_REDEFINE = 1
_METADATA_ONLY = 2


def guest(folder: str | Path) -> str:
    """The document of a domain whose two disks are files in a folder."""
    disks = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{folder}/{name}'/>"
        f"<target dev='{name}' bus='virtio'/></disk>"
        for name in ("vda", "vdb")
    )
    return (
        f"<domain type='test'><name>d</name><uuid>{UUID}</uuid><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices>{disks}</devices></domain>"
    )


class Calls:
    """What can be asked, by name.

    Args:
        libvirt: the module.
        uri: of the host.
    """

    def __init__(self, libvirt: Any, uri: str) -> None:
        self._libvirt = libvirt
        self._uri = uri
        self._opened: Any = None
        self._domain: Any = None
        self._folder = tempfile.mkdtemp(prefix="given-")

    @property
    def _connection(self) -> Any:
        self._opened = self._opened or self._libvirt.open(self._uri)
        return self._opened

    def close(self) -> None:
        """End the domain, and the connection."""
        if self._domain is not None:
            self._domain.destroy()
        for name in os.listdir(self._folder):
            os.unlink(os.path.join(self._folder, name))
        os.rmdir(self._folder)
        if self._opened is not None:
            self._opened.close()

    def answer(self, call: str, xml: str) -> Answer:
        """What becomes of a document."""
        try:
            return "kept", getattr(self, call)(xml).replace(self._folder, "FOLDER"), 0
        except self._libvirt.libvirtError as error:
            return "refused", str(error), error.get_error_code()

    def secret(self, xml: str) -> str:
        found = self._connection.secretDefineXML(xml)
        text: str = found.XMLDesc()
        found.undefine()
        return text

    def filter(self, xml: str) -> str:
        found = self._connection.nwfilterDefineXML(xml)
        text: str = found.XMLDesc()
        found.undefine()
        return text

    def device(self, xml: str) -> str:
        """A device of a host that a file describes."""
        path = os.path.join(self._folder, "host.xml")
        with open(path, "w") as file:
            file.write(f"<node>{xml}</node>")
        connection = self._libvirt.open(f"test://{path}")
        text: str = connection.listAllDevices()[0].XMLDesc()
        connection.close()
        return text

    def made_device(self, xml: str) -> str:
        found = self._connection.nodeDeviceCreateXML(xml)
        text: str = found.XMLDesc()
        found.destroy()
        return text

    def volume(self, xml: str) -> str:
        found = self._connection.storagePoolLookupByName("default-pool").createXML(xml)
        text: str = found.XMLDesc()
        found.delete()
        return text

    def snapshot(self, xml: str) -> str:
        return self._snapshot(xml, 0)

    def snapshot_again(self, xml: str) -> str:
        return self._snapshot(xml, _REDEFINE)

    def checkpoint(self, xml: str) -> str:
        return self._checkpoint(xml, 0)

    def checkpoint_again(self, xml: str) -> str:
        return self._checkpoint(xml, _REDEFINE)

    def compared(self, xml: str) -> str:
        return str(self._connection.compareCPU(xml))

    def compared_with_emulator(self, xml: str) -> str:
        return str(self._connection.compareHypervisorCPU(None, None, None, None, xml))

    def baseline(self, xml: str) -> str:
        return str(self._connection.baselineCPU([xml]))

    def baseline_of_emulator(self, xml: str) -> str:
        return str(self._connection.baselineHypervisorCPU(None, None, None, None, [xml]))

    def backup(self, xml: str) -> str:
        """Of a machine that QEMU has; the job is ended."""
        guest = self._machine()
        guest.backupBegin(xml.replace("FOLDER", self._folder), None)
        try:
            text: str = guest.backupGetXMLDesc()
        except self._libvirt.libvirtError:
            text = ""
        self._end_backup(guest)
        # One that is pushed may be done already, and images are numbered as they come.
        return re.sub(" index='[0-9]+'", "", text) if "mode='pull'" in text else ""

    def _end_backup(self, guest: Any) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                guest.backupGetXMLDesc()
            except self._libvirt.libvirtError:
                break
            with contextlib.suppress(self._libvirt.libvirtError):
                guest.abortJob()
            time.sleep(0.01)
        for name in os.listdir(self._folder):
            if name not in ("vda", "vdb"):
                os.unlink(os.path.join(self._folder, name))

    def _machine(self) -> Any:
        """A machine of QEMU's that stands still, with two images that its user may write."""
        if self._domain is None:
            os.chmod(self._folder, 0o777)
            for name in ("vda", "vdb"):
                path = os.path.join(self._folder, name)
                subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64K"], check=True)
                os.chmod(path, 0o666)
            xml = guest(self._folder).replace("type='test'", "type='qemu'").replace(">1024<", ">32768<")
            self._domain = self._connection.createXML(xml, self._libvirt.VIR_DOMAIN_START_PAUSED)
        return self._domain

    def _guest(self) -> Any:
        if self._domain is None:
            for name in ("vda", "vdb"):
                open(os.path.join(self._folder, name), "w").close()
            self._domain = self._connection.createXML(guest(self._folder))
        return self._domain

    def _snapshot(self, xml: str, flags: int) -> str:
        found = self._guest().snapshotCreateXML(xml.replace("FOLDER", self._folder), flags)
        text: str = found.getXMLDesc()
        found.delete()
        return text

    def _checkpoint(self, xml: str, flags: int) -> str:
        found = self._guest().checkpointCreateXML(xml.replace("FOLDER", self._folder), flags)
        text: str = found.getXMLDesc()
        found.delete(_METADATA_ONLY if flags else 0)
        return text


def ours(call: str, uri: str, documents: Sequence[str]) -> list[Answer]:
    """What our drivers make of documents."""
    import hostel.libvirt as libvirt

    return _all(Calls(libvirt, uri), call, documents)


def theirs(call: str, uri: str, documents: Sequence[str]) -> list[Answer] | None:
    """What libvirt's make of them; None where libvirt is not the one that is compared with."""
    asked = subprocess.run(
        [PYTHON, __file__, call, uri], input=json.dumps(documents), capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    version, answers = json.loads(asked.stdout)
    return [tuple(answer) for answer in answers] if version // 1000 == 9000 else None


def _all(calls: Calls, call: str, documents: Sequence[str], told: Callable[[Answer], None] | None = None) -> list[Any]:
    answers = []
    for xml in documents:
        answers.append(calls.answer(call, xml))
        if told is not None:
            told(answers[-1])
    calls.close()
    return answers


def _main(call: str, uri: str) -> None:
    """Ask libvirt in processes of their own: libvirt 9.0 ends at some documents."""
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    documents: list[str] = json.load(sys.stdin)
    answers: list[Answer] = []
    while len(answers) < len(documents):
        reader, writer = os.pipe()
        if not os.fork():
            with os.fdopen(writer, "w") as out:
                left = documents[len(answers) :]
                _all(Calls(libvirt, uri), call, left, lambda answer: print(json.dumps(answer), file=out, flush=True))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as told:
            answers += map(json.loads, told)
        if os.wait()[1]:
            answers.append(("ended", "", 0))
    print(json.dumps([libvirt.getVersion(), answers]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
