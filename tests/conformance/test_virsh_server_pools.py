"""Pools of servers through our virsh against real virsh and a real libvirtd: Ceph, iSCSI without the kernel, Gluster.

Each of the two has a part of the same server, whose name is taken out of what they print.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ceph as cephs
from support import gluster, iscsi, libvirtd_system
from support.virsh import Ours, Real

pytestmark = [pytest.mark.requires_tool("virsh"), pytest.mark.requires_tool("libvirtd")]

UUID = "11111111-2222-3333-4444-555555555555"
SECRET = "aaaaaaaa-2222-3333-4444-555555555555"
INITIATOR = "iqn.2024-01.test:us"
needs_ceph = [
    pytest.mark.requires_tool("ceph-mon"),
    pytest.mark.requires_tool("ceph-osd"),
    pytest.mark.requires_tool("rbd"),
    pytest.mark.skipif(not cephs.may_run(), reason="a cluster takes root"),
]
needs_tgt = [
    pytest.mark.requires_tool("tgtd"),
    pytest.mark.skipif(not iscsi.may_serve(), reason="the target takes root"),
]
needs_gluster = [
    pytest.mark.requires_tool("glusterd"),
    pytest.mark.skipif(not gluster.may_serve(), reason="the server's network takes root"),
]

CEPH_LINES = [
    "pool-define {W}/pool.xml",
    "pool-start p",
    "secret-define {W}/secret.xml",
    "pool-start p",
    f"secret-set-value {SECRET} {{K}}",
    "pool-start p",
    "pool-dumpxml p",
    "pool-info p",
    "vol-list p",
    "vol-create-as p v1 16M",
    "vol-create-as p v1 16M",
    "vol-create-as p v2 8M --format qcow2",
    "vol-create-as p v2 8M --format raw",
    "vol-list p --details",
    "vol-dumpxml v1 p",
    "vol-key v1 p",
    "vol-path v1 p",
    "vol-clone v1 v3 p",
    "vol-clone v1 v4 p",
    "vol-info v3 p",
    "vol-resize v2 12M p",
    "vol-resize v2 4M p",
    "vol-info v2 p --bytes",
    "vol-wipe v2 p",
    "vol-wipe v2 p --algorithm trim",
    "vol-wipe v2 p --algorithm dod",
    "vol-download v2 {W}/out p",
    "vol-upload v2 {W}/pool.xml p",
    "vol-delete v2 p",
    "vol-delete v2 p",
    "vol-delete v3 p",
    "vol-delete v4 p",
    "vol-delete v1 p --delete-snapshots",
    "vol-list p",
    "pool-build p",
    "pool-refresh p",
    "pool-destroy p",
    "pool-delete p",
    "find-storage-pool-sources-as rbd",
    "pool-undefine p",
]
ISCSI_LINES = [
    "pool-create {W}/pool.xml",
    "pool-dumpxml p",
    "vol-list p",
    "vol-create-as p x 1M",
    "vol-delete unit:0:0:1 p",
    "vol-resize unit:0:0:1 100M p",
    "vol-clone unit:0:0:1 y p",
    "vol-download unit:0:0:1 {W}/out p",
    "vol-wipe unit:0:0:1 p --algorithm dod",
    "vol-wipe unit:0:0:1 p",
    "vol-path unit:0:0:1 p",
    "vol-key unit:0:0:1 p",
    "pool-refresh p",
    "pool-build p",
    f"find-storage-pool-sources-as iscsi-direct 127.0.0.1 --port {{N}} --initiator {INITIATOR}",
    "find-storage-pool-sources-as iscsi-direct 127.0.0.1 --port {N}",
    "find-storage-pool-sources-as iscsi-direct",
    "pool-destroy p",
]
GLUSTER_LINES = [
    "pool-define-as p gluster --source-host 10.99.0.1 --source-name disks --source-path /{S}",
    "pool-define-as q gluster --source-host 10.99.0.1 --source-name disks --source-path /{S}",
    "pool-start p",
    "pool-dumpxml p",
    "vol-list p --details",
    "vol-dumpxml a.raw p",
    "vol-dumpxml b.qcow2 p",
    "vol-dumpxml folder p",
    "vol-create-as p x 1M",
    "vol-resize a.raw 4M p",
    "vol-clone a.raw c.raw p",
    "pool-destroy p",
    "pool-delete p",
]
_BLURRED = (
    (re.compile(r"\n(error: )? {2,}"), "\n "),
    (re.compile(r"<([amc]time)>[0-9.]+<"), r"<\1>T<"),
    (
        re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        lambda found: found[0] if found[0] == SECRET else "UUID",
    ),
    (re.compile(r"(<(?:allocation|available) unit='bytes'>)[0-9]{9,}<"), r"\1N<"),
    # A server's own notes on a file, made when somebody first looks at it.
    (re.compile(r"<allocation unit='bytes'>4096<"), "<allocation unit='bytes'>0<"),
    (re.compile(r"^((?:Allocation|Available): +)[0-9.]+ .iB$", re.MULTILINE), r"\1N"),
    (re.compile(r"-{20,}"), "-"),
    (re.compile(r" +"), " "),
)


def blurred(result: tuple[int, str, str], *names: str) -> tuple[int, str, str]:
    """Take out the names of one side, and what differs from moment to moment."""

    def blur(text: str) -> str:
        for name in names:
            text = text.replace(name, "NAME")
        for pattern, replacement in _BLURRED:
            text = pattern.sub(replacement, text)
        return text.rstrip()

    return result[0], blur(result[1]), blur(result[2])


def codes_and_words(found: tuple[int, str, str], expected: tuple[int, str, str]) -> None:
    """Both succeed with the same answer, or both refuse; the first words of why are libvirt's."""
    assert found[0] == expected[0], (found, expected)
    if not expected[0]:
        assert found == expected


@pytest.fixture
def real() -> Iterator[Real]:
    with libvirtd_system.running() as uri:
        yield Real(uri)


class TestCeph:
    """Images of a cluster with authentication."""

    pytestmark = needs_ceph

    def test_the_lines_give_what_virsh_gives(self, real: Real, tmp_path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="ceph") as work, cephs.cluster(Path(work)) as cluster:
            ours = Ours(tmp_path / "home")
            for name in ("theirs", "mine"):
                cluster.run("ceph", "osd", "pool", "create", name, "8")
                cluster.run("rbd", "pool", "init", name)
                self._write(cluster, tmp_path / name)
            key = cluster.keys["client.admin"]
            for line in CEPH_LINES:
                their_line = line.format(W=tmp_path / "theirs", K=key)
                asked = real.beside("secret") if line.startswith("secret") else real
                expected = blurred(asked.run(their_line), str(tmp_path), "theirs")
                found = blurred(ours.run(line.format(W=tmp_path / "mine", K=key)), str(tmp_path), "mine")
                if line.startswith("vol-wipe v2 p --algorithm dod") or expected[0]:
                    assert found[0] == expected[0], (line, found, expected)
                else:
                    assert found == expected, line

    def _write(self, cluster: cephs.Ceph, folder: Path) -> None:
        folder.mkdir()
        host, port = cluster.monitor.split(":")
        (folder / "pool.xml").write_text(
            f"<pool type='rbd'><name>p</name><uuid>{UUID}</uuid><source><name>{folder.name}</name>"
            f"<host name='{host}' port='{port}'/><auth type='ceph' username='admin'><secret uuid='{SECRET}'/></auth>"
            "</source></pool>"
        )
        (folder / "secret.xml").write_text(
            f"<secret private='yes'><uuid>{SECRET}</uuid><usage type='ceph'><name>admin</name></usage></secret>"
        )

    def test_clones_share_and_keep_what_they_were_made_of(self, tmp_path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="ceph") as work, cephs.cluster(Path(work)) as cluster:
            folder = tmp_path / cephs.POOL
            self._write(cluster, folder)
            cluster.run("rbd", "pool", "init", cephs.POOL)
            ours = Ours(tmp_path / "home")
            for line in (
                "secret-define {W}/secret.xml",
                f"secret-set-value {SECRET} {cluster.keys['client.admin']}",
                "pool-create {W}/pool.xml",
                "vol-create-as p v1 8M",
            ):
                assert ours.run(line.format(W=folder))[0] == 0, line
            (tmp_path / "content").write_bytes(b"first" * 1000)
            cluster.run("rbd", "bench", "--io-type", "write", "--io-total", "1M", "v1")
            assert ours.run("vol-clone v1 v2 p")[0] == 0
            assert ours.run("vol-clone v1 v3 p")[0] == 0
            snapshots = json.loads(cluster.run("rbd", "snap", "ls", "v1", "--format", "json"))
            assert len(snapshots) == 1, "nothing was written in between: one snapshot is enough for both"
            cluster.run("rbd", "export", "v1", str(tmp_path / "one"))
            cluster.run("rbd", "export", "v2", str(tmp_path / "two"))
            assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
            code, _, said = ours.run("vol-delete v1 p")
            assert code == 1 and "remove them too with --delete-snapshots" in said
            assert ours.run("vol-delete v1 p --delete-snapshots")[0] == 1  # clones stand on it
            for line in ("vol-delete v2 p", "vol-delete v3 p", "vol-delete v1 p --delete-snapshots"):
                assert ours.run(line)[0] == 0, line


class TestIscsiDirect:
    """Units of a target."""

    pytestmark = needs_tgt

    def test_the_lines_give_what_virsh_gives(self, real: Real, tmp_path: Path) -> None:
        ours = Ours(tmp_path / "home")
        with self._served(tmp_path / "theirs") as theirs, self._served(tmp_path / "mine") as mine:
            for line in ISCSI_LINES:
                expected = blurred(
                    real.run(line.format(W=tmp_path / "theirs", N=theirs)), str(tmp_path / "theirs"), theirs
                )
                found = blurred(ours.run(line.format(W=tmp_path / "mine", N=mine)), str(tmp_path / "mine"), mine)
                if line == "pool-dumpxml p":
                    # libvirt takes the number of a unit's last block for how many it has.
                    expected = (0, expected[1].replace(str(2 * (4 << 20) - 2 * 512), str(2 * (4 << 20))), "")
                assert found == expected, line
        for side in ("theirs", "mine"):
            assert not any((tmp_path / side / "one").read_bytes())
            assert (tmp_path / side / "two").read_bytes() == b"x" * (4 << 20)

    def test_a_password_is_a_secret(self, real: Real, tmp_path: Path) -> None:
        ours = Ours(tmp_path / "home")
        (tmp_path / "disk").write_bytes(bytes(1 << 20))
        (tmp_path / "secret.xml").write_text(
            f"<secret private='yes'><uuid>{SECRET}</uuid><usage type='iscsi'><target>t</target></usage></secret>"
        )
        with iscsi.target(tmp_path / "disk", user="me", password="correct horse") as url:
            port = re.search(r":(\d+)/", url)
            assert port is not None
            auth = "<auth type='chap' username='me'><secret usage='t'/></auth>"
            document = self._document(port[1]).replace("</source>", f"{auth}</source>")
            (tmp_path / "pool.xml").write_text(document)
            for line in (
                "pool-create {W}/pool.xml",
                "secret-define {W}/secret.xml",
                "pool-create {W}/pool.xml",
                f"secret-set-value {SECRET} d3JvbmcgcGFzc3dvcmQ=",
                "pool-create {W}/pool.xml",
                f"secret-set-value {SECRET} Y29ycmVjdCBob3JzZQ==",
                "pool-create {W}/pool.xml",
                "pool-dumpxml p",
                "vol-list p",
                "pool-destroy p",
            ):
                asked = real.beside("secret") if line.startswith("secret") else real
                expected = blurred(asked.run(line.format(W=tmp_path)), port[1])
                found = blurred(ours.run(line.format(W=tmp_path)), port[1])
                assert found[0] == expected[0], (line, found, expected)
                if line.startswith("vol-list"):
                    assert found == expected

    def test_a_target_that_is_away_is_named(self, tmp_path: Path) -> None:
        ours = Ours(tmp_path / "home")
        (tmp_path / "pool.xml").write_text(self._document("1"))
        code, _, said = ours.run(f"pool-create {tmp_path}/pool.xml")
        assert code == 1
        assert f"target '{iscsi.TARGET}' of '127.0.0.1:1': Failed to connect" in said

    def _served(self, folder: Path) -> _Served:
        return _Served(folder, self._document)

    def _document(self, port: str) -> str:
        return (
            f"<pool type='iscsi-direct'><name>p</name><uuid>{UUID}</uuid><source><host name='127.0.0.1' port='{port}'/>"
            f"<device path='{iscsi.TARGET}'/><initiator><iqn name='{INITIATOR}'/></initiator></source></pool>"
        )


class _Served:
    """A target of two units, whose document lies in a folder; gives its port."""

    def __init__(self, folder: Path, document: object) -> None:
        folder.mkdir()
        self._folder, self._document = folder, document
        for name in ("one", "two"):
            (folder / name).write_bytes(b"x" * (4 << 20))
        self._target = iscsi.target(folder / "one", folder / "two")

    def __enter__(self) -> str:
        port = re.search(r":(\d+)/", self._target.__enter__())
        assert port is not None and callable(self._document)
        (self._folder / "pool.xml").write_text(self._document(port[1]))
        return port[1]

    def __exit__(self, *error: object) -> None:
        self._target.__exit__(None, None, None)


class TestGluster:
    """Files of a volume."""

    pytestmark = needs_gluster

    @pytest.mark.requires_tool("qemu-img")
    def test_the_lines_give_what_virsh_gives(self, tmp_path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="gl") as work, gluster.gluster_server(Path(work)) as server:
            assert (
                self._ours(server, tmp_path, "find-storage-pool-sources-as gluster 10.99.0.1")[1].count("<source>") == 1
            )
            for side in ("theirs", "mine"):
                folder = server.folder / side
                assert not server.run("true").returncode
                folder.mkdir()
                (folder / "folder").mkdir()
                with (folder / "a.raw").open("wb") as file:
                    file.truncate(3 << 20)
                command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "b.qcow2"]
                subprocess.run(command, cwd=folder, check=True, timeout=60)
            with libvirtd_system.running(server.inside([])) as uri:
                real = Real(uri)
                for line in GLUSTER_LINES:
                    expected = blurred(real.run(line.format(S="theirs")), "theirs")
                    assert blurred(self._ours(server, tmp_path, line.format(S="mine")), "mine") == expected, line
            # Twelve seconds each with the real one.
            for line in ("pool-start p", "vol-delete a.raw p", "pool-refresh p", "vol-list p"):
                code, out, err = self._ours(server, tmp_path, line)
                assert not code, err
            assert "b.qcow2" in out and "a.raw" not in out
            line = "pool-create-as r gluster --source-host 10.99.0.1 --source-name nothing --source-path /"
            code, _, err = self._ours(server, tmp_path, line)
            assert code == 1 and "failed to connect to gluster://10.99.0.1/nothing/" in err

    def _ours(self, server: gluster.GlusterServer, home: Path, line: str) -> tuple[int, str, str]:
        words = ["env", f"HOSTEL_HOME={home}", sys.executable, "-m", "hostel", "virsh", line]
        done = subprocess.run(
            server.inside(words),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        return done.returncode, done.stdout, done.stderr
