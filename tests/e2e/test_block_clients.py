"""Block jobs as libvirt's own clients ask for them, through a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import hosteld, image
from support.hosteld import Hosteld
from support.session import disk, domain_xml

pytestmark = [pytest.mark.qemu, pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("qemu-img")]
URI = "qemu:///system"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Hosteld]:
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", 1 << 20)
    image.write(tmp_path / "a.qcow2", "qcow2", (0, b"\x07" * 65536))
    (tmp_path / "m.xml").write_text(domain_xml(tmp_path, disk(tmp_path / "a.qcow2", "qcow2"), name="m"))
    with hosteld.process() as served:
        served.virsh("create", str(tmp_path / "m.xml"), uri=URI)
        try:
            yield served
        finally:
            served.virsh("destroy", "m", uri=URI, check=False)


def refusal(daemon: Hosteld, *words: str) -> str:
    return daemon.virsh(*words, uri=URI, check=False).stderr.strip()


def test_transient_machine_is_copied_by_the_older_call(tmp_path: Path, daemon: Hosteld) -> None:
    image.qemu_img("create", "-q", "-f", "qcow2", tmp_path / "made.qcow2", 1 << 20)
    daemon.virsh("blockcopy", "m", "vda", f"{tmp_path}/one.raw", "--raw", "--wait", "--pivot", uri=URI)
    assert (tmp_path / "one.raw").read_bytes()[:65536] == b"\x07" * 65536
    daemon.virsh("blockcopy", "m", "vda", f"{tmp_path}/made.qcow2", "--reuse-external", "--wait", "--pivot", uri=URI)
    image.real_qemu_img("convert", "-U", "-O", "raw", str(tmp_path / "made.qcow2"), str(tmp_path / "read"))
    assert (tmp_path / "read").read_bytes()[:65536] == b"\x07" * 65536
    shown = daemon.virsh("dumpxml", "m", uri=URI).stdout
    assert "<driver name='qemu' type='qcow2'/>" in shown and "made.qcow2" in shown
    daemon.virsh("define", str(tmp_path / "m.xml"), uri=URI)
    said = refusal(daemon, "blockcopy", "m", "vda", f"{tmp_path}/two")
    assert said.startswith("error: Requested operation is not valid: domain is not transient")


def test_images_that_a_chain_has_not_are_named_as_libvirt_does(tmp_path: Path, daemon: Hosteld) -> None:
    top = f"{tmp_path}/a.qcow2"
    wrong = {
        ("blockcommit", "--base", "vda[3]"): "could not find backing store index '3' in chain for 'vda'",
        ("blockcommit", "--base", "/x"): f"could not find image '/x' beneath '{top}' in chain for 'vda'",
        ("blockcommit", "--active"): "could not find base image in chain for 'vda'",
        ("blockpull", "--base", "vda[9]"): "could not find backing store index '9' in chain for 'vda'",
    }
    for (command, *options), words in wrong.items():
        assert refusal(daemon, command, "m", "vda", *options) == f"error: invalid argument: {words}"
    said = refusal(daemon, "domblkthreshold", "m", "vda[9]", "5")
    assert said == "error: invalid argument: failed to find disk 'vda[9]'"
    assert refusal(daemon, "domblkstat", "m", "vdz").endswith("error: invalid argument: invalid path: vdz")
    said = refusal(daemon, "blkdeviotune", "m", "vda", "--total-bytes-sec", "10", "--read-bytes-sec", "10")
    words = "total and read/write of bytes_sec cannot be set at the same time"
    assert said.endswith(f"error: invalid argument: {words}")
    assert refusal(daemon, "screenshot", "m", "/dev/null", "--screen", "9").endswith(
        "no screens to take screenshot from"
    )


def test_events_name_what_a_disk_is_on_then(tmp_path: Path, daemon: Hosteld) -> None:
    said = daemon.python(
        f"""
import threading, time
libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(int, 1)], daemon=True).start()
c = libvirt.open({daemon.uri(URI)!r})
told = []
def listen(kind, of):
    number = getattr(libvirt, "VIR_DOMAIN_EVENT_ID_" + kind)
    c.domainEventRegisterAny(None, number, lambda _, d, *rest: told.append(of(*rest)), None)
listen("BLOCK_JOB", lambda path, *rest: path)
listen("METADATA_CHANGE", lambda kind, uri, _: uri)
listen("JOB_COMPLETED", lambda params, _: params["operation"])
d = c.lookupByName("m")
d.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<a/>", "k", "uri:x", libvirt.VIR_DOMAIN_AFFECT_LIVE)
d.blockCopy("vda", "<disk type='file'><source file='{tmp_path}/new'/></disk>")
while len(told) < 2: time.sleep(0.05)
d.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
while len(told) < 3: time.sleep(0.05)
d.save("{tmp_path}/saved")
while len(told) < 4: time.sleep(0.05)
print(*told)
""",
        uri=URI,
    )
    assert said.split() == ["uri:x", f"{tmp_path}/a.qcow2", f"{tmp_path}/new", "2"]


def test_snapshots_inside_an_image_keep_what_is_below_it(tmp_path: Path, daemon: Hosteld) -> None:
    daemon.virsh("snapshot-create-as", "m", "outer", "--disk-only", "--no-metadata", uri=URI)
    daemon.virsh("snapshot-create-as", "m", "inner", uri=URI)
    words = f"error: Operation not supported: '{tmp_path}/a.outer' has snapshots inside (inner)"
    assert refusal(daemon, "blockpull", "m", "vda").startswith(words)
    assert refusal(daemon, "blockcommit", "m", "vda", "--active").startswith(words)
    daemon.virsh("snapshot-delete", "m", "inner", uri=URI)
    daemon.virsh("blockpull", "m", "vda", "--wait", uri=URI)
