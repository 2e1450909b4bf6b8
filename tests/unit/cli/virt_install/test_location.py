"""Installation trees: what starts them is found, and nothing outside of them is read."""

from __future__ import annotations

import gzip
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pycdlib
import pytest

from hostel.cli.virt_install import location
from hostel.cli.virt_install.database import TreeNote
from hostel.cli.virt_install.location import DirectoryTree, IsoTree, Kernel, contents, detect, inject, open_tree
from hostel.errors import UsageError

NETBOOT = "current/images/netboot/debian-installer/amd64"
NOTE = """[general]
family = {family}
version = {version}
arch = x86_64
[images-x86_64]
kernel = k/vmlinuz
initrd = k/initrd
"""


def tree(root: Path, files: dict[str, str]) -> DirectoryTree:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return DirectoryTree(str(root))


@pytest.mark.parametrize(
    ("family", "version", "repository", "system"),
    [
        ("Fedora", "37", "inst.repo=", "fedora37"),
        ("Fedora", "17", "method=", "fedora17"),
        ("Red Hat Enterprise Linux", "9.1", "inst.repo=", "rhel9.1"),
        ("Red Hat Enterprise Linux", "6.0", "method=", "rhel6.0"),
        ("CentOS", "8", "inst.repo=", "centos-stream8"),
        ("openSUSE Leap", "15.4", "install=", None),
    ],
)
def test_a_tree_that_says_what_it_is_is_believed(
    tmp_path: Path, family: str, version: str, repository: str, system: str | None
) -> None:
    found = detect(tree(tmp_path, {".treeinfo": NOTE.format(family=family, version=version)}), "t", "x86_64")
    assert found == Kernel("k/vmlinuz", "k/initrd", repository, system, TreeNote(family, "", version, "x86_64"))


@pytest.mark.parametrize(
    ("kernel", "initrd"),
    [
        (f"{NETBOOT}/linux", f"{NETBOOT}/initrd.gz"),
        ("install.amd/vmlinuz", "install.amd/initrd.gz"),
        ("casper/vmlinuz", "casper/initrd"),
        ("boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"),
        ("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"),
    ],
)
def test_the_usual_places_are_tried(tmp_path: Path, kernel: str, initrd: str) -> None:
    found = detect(tree(tmp_path, {kernel: "", initrd: ""}), "t", "x86_64")
    assert (found.kernel, found.initrd) == (kernel, initrd)


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Could not find an installable distribution at URL 't'"):
        detect(tree(tmp_path, {"linux": ""}), "t", "x86_64")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link"])
def test_nothing_outside_of_a_tree_is_read(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="outside of it"):
        DirectoryTree(str(tmp_path / "t")).fetch(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("place", ["nfs:host:/path", "nfs://host/path", "file:///etc", "gopher://x/"])
def test_other_addresses_are_refused(place: str) -> None:
    with pytest.raises(UsageError):
        open_tree(place)


def test_a_cdrom_image_is_a_tree(tmp_path: Path) -> None:
    iso = pycdlib.PyCdlib()
    iso.new(rock_ridge="1.09")
    iso.add_directory("/CASPER", rr_name="casper")
    for number, name in enumerate(("vmlinuz", "initrd")):
        iso.add_fp(io.BytesIO(name.encode()), len(name), f"/CASPER/F{number}.;1", rr_name=name)
    iso.write(str(tmp_path / "a.iso"))
    iso.close()
    found = open_tree(str(tmp_path / "a.iso"))
    assert isinstance(found, IsoTree)
    assert detect(found, "t", "x86_64").kernel == "casper/vmlinuz"
    found.fetch("casper/initrd", tmp_path / "copy")
    found.close()
    assert (tmp_path / "copy").read_bytes() == b"initrd"
    (tmp_path / "b.iso").write_bytes(bytes(4096))
    with pytest.raises(UsageError, match="is no CD-ROM image"):
        open_tree(str(tmp_path / "b.iso"))


def test_a_file_is_injected_as_one_more_archive(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(b"0123")
    (tmp_path / "ks.cfg").write_text("install\n")
    inject(tmp_path / "initrd", contents([str(tmp_path / "ks.cfg")]))
    whole = (tmp_path / "initrd").read_bytes()
    archive = gzip.decompress(whole[4:])
    assert whole[:4] == b"0123"
    assert archive[:6] == b"070701"
    assert archive[110:117] == b"ks.cfg\0"
    assert b"install\n" in archive
    assert b"TRAILER!!!\0" in archive
    assert len(archive) % 4 == 0


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path))) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_a_server_is_a_tree(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path / "t", {".treeinfo": NOTE.format(family="Fedora", version="37"), "k/vmlinuz": "kernel"})
    found = open_tree(f"{server}/t/")
    assert detect(found, "t", "x86_64").system == "fedora37"
    assert (found.has("k/vmlinuz"), found.has("k/nosuch"), found.read("nosuch")) == (True, False, None)
    found.fetch("k/vmlinuz", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "kernel"
    monkeypatch.setattr(location, "_LARGEST", 3)
    with pytest.raises(UsageError, match="does not end"):
        found.fetch("k/vmlinuz", tmp_path / "other")


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Connection refused"):
        open_tree("http://127.0.0.1:1/").read(".treeinfo")
