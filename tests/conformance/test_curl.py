"""Images on web, FTP and TFTP servers, beside real qemu-img where it has the protocol."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.errors import BlockError
from support.nbd import Certificates
from support.web import ftp_server, nginx, tftp_server

pytest.importorskip("pycurl")
pytestmark = [
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("block-curl.so"),
    pytest.mark.requires_tool("nginx"),
]

OURS = [sys.executable, "-m", "hostel", "qemu-img"]
MIB = 1 << 20


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw image of an odd length, as qcow2, as compressed qcow2, an overlay of that, and an empty file."""
    folder = tmp_path_factory.mktemp("served")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    content = bytearray(3 * MIB + 700)
    content[MIB : 2 * MIB] = random.Random(1).randbytes(MIB)
    content[-700:] = random.Random(2).randbytes(700)
    (folder / "disk.raw").write_bytes(content)
    (folder / "empty").touch()
    _qemu_img(folder, "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2")
    _qemu_img(folder, "convert", "-c", "-f", "raw", "-O", "qcow2", "disk.raw", "small.qcow2")
    _qemu_img(folder, "create", "-q", "-f", "qcow2", "-b", "small.qcow2", "-F", "qcow2", "top.qcow2")
    return folder


@pytest.fixture(scope="module")
def web(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    extra = "location /moved/ { rewrite ^/moved/(.*)$ /$1 redirect; } location /whole/ { alias %s/; max_ranges 0; }"
    with nginx(files, tmp_path_factory.mktemp("nginx"), extra=extra % files) as url:
        yield url


def _qemu_img(folder: Path, *words: str) -> None:
    subprocess.run(["qemu-img", *words], cwd=folder, check=True, timeout=60)


def _both(*words: str) -> list[tuple[int, str, str]]:
    results = []
    for tool in (OURS, ["qemu-img"]):
        done = subprocess.run([*tool, *words], capture_output=True, text=True, timeout=60, check=False)
        # What GLib says of QEMU's own mistakes on its way out is left out.
        said = "".join(line for line in done.stderr.splitlines(keepends=True) if "GLib" not in line)
        results.append((done.returncode, done.stdout, said))
    return results


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2", "small.qcow2", "top.qcow2", "empty", "moved/disk.qcow2"])
@pytest.mark.parametrize("command", ["info", "info --output=json --backing-chain", "map --output=json", "check"])
def test_tools_agree_on_what_a_web_server_has(web: str, name: str, command: str) -> None:
    ours, theirs = _both(*command.split(), f"{web}/{name}")
    assert ours == theirs


@pytest.mark.parametrize("name", ["nothing-here", "whole/disk.raw"])
def test_tools_agree_on_what_they_refuse(web: str, name: str) -> None:
    ours, theirs = _both("info", f"{web}/{name}")
    assert ours == theirs
    assert ours[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["create", "-f", "qcow2", "{}/new", "1M"],
        ["resize", "-f", "raw", "{}/disk.raw", "8M"],
        ["convert", "-O", "raw", "{}/disk.raw", "{}/new"],
        ["info", "--image-opts", "driver=http,url={}/disk.raw,readahead=100"],
        ["info", "--image-opts", "driver=http,url={}/disk.raw,timeout=10001"],
        ["info", "--image-opts", "driver=https,url={}/disk.raw"],
        ["info", "--image-opts", "driver=http,url={}/disk.raw,cookie=a,cookie-secret=b"],
        ["info", "--image-opts", "driver=http,url={}/disk.raw,password-secret=none"],
        ["info", "--image-opts", "driver=http,url={}/disk.raw,username=somebody"],
        ["info", 'json:{{"driver": "qcow2", "file": {{"driver": "http", "url": "{}/disk.qcow2", "username": "who"}}}}'],
    ],
)
def test_tools_agree_on_options(web: str, words: list[str]) -> None:
    ours, theirs = _both(*(word.format(web) for word in words))
    # What may be a password is not printed here.
    assert ours == (*theirs[:2], theirs[2].replace("cookie=a,", "cookie=***,"))


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2", "small.qcow2", "top.qcow2"])
def test_every_byte_arrives(web: str, files: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "copy.raw"
    subprocess.run([*OURS, "convert", "-O", "raw", f"{web}/{name}", str(target)], check=True, timeout=60)
    content = (files / "disk.raw").read_bytes()
    assert target.read_bytes() == content.ljust(len(target.read_bytes()), b"\0")


def test_only_who_is_trusted_is_trusted(files: Path, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    (tmp_path / "nginx").mkdir()
    with nginx(files, tmp_path / "nginx", certificates=certificates.make("server", server=True)) as url:
        words = [*OURS, "info", f"{url}/disk.qcow2"]
        refused = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 1
        assert "certificate" in refused.stderr
        trusting = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "authority.pem")}
        assert subprocess.run(words, capture_output=True, timeout=60, check=False, env=trusting).returncode == 0
        careless = [*OURS, "info", "--image-opts", f"driver=https,url={url}/disk.raw,sslverify=off"]
        assert subprocess.run(careless, capture_output=True, timeout=60, check=False).returncode == 0


def test_a_password_for_the_web_server(files: Path, tmp_path: Path) -> None:
    work = tmp_path / "nginx"
    work.mkdir()
    (work / "users").write_text("who:{PLAIN}secret\n")
    secret = ["--object", "secret,id=s0,data=secret"]
    with nginx(files, work, extra=f'auth_basic "x"; auth_basic_user_file {work}/users;') as url:
        opened = f"driver=http,url={url}/disk.raw,username=who,password-secret=s0"
        ours, theirs = _both("info", *secret, "--image-opts", opened)
        assert ours == theirs
        assert ours[0] == 0
        ours, theirs = _both("info", f"{url}/disk.raw")
        assert ours == theirs
        assert "401" in ours[2]
        within = url.replace("//", "//who:secret@")
        done = subprocess.run(
            [*OURS, "info", f"{within}/disk.raw"], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0
        assert "secret" not in done.stdout + done.stderr


def test_ftp(files: Path) -> None:
    pytest.importorskip("pyftpdlib")
    content = (files / "disk.raw").read_bytes()
    with ftp_server(files, "who", "secret") as place, graph.open(f"ftp://who:secret@{place}/disk.raw") as node:
        assert node.filename == f"ftp://who@{place}/disk.raw"
        assert node.read(0, len(content)) == content
        assert node.read(MIB + 5, 100) == content[MIB + 5 :][:100]
    with ftp_server(files) as place:
        ours, theirs = _both("info", f"ftp://{place}/disk.qcow2")
        assert ours == theirs
        assert ours[0] == 0
        ours, theirs = _both("info", f"ftp://{place}/nothing-here")
        assert ours[0] == theirs[0] == 1


@pytest.mark.requires_tool("in.tftpd")
@pytest.mark.skipif(os.geteuid() != 0, reason="in.tftpd locks itself in, which takes root")
def test_tftp_which_qemu_has_no_more(files: Path) -> None:
    content = (files / "disk.raw").read_bytes()
    with tftp_server(files) as place:
        with graph.open(f"tftp://{place}/disk.raw", "raw") as node:
            assert node.length == -(-len(content) // 512) * 512
            assert node.read(0, len(content)) == content
        with graph.open(f"tftp://{place}/small.qcow2", "qcow2") as node:
            assert node.read(0, len(content)) == content
        with pytest.raises(BlockError, match="CURL: Error opening file"):
            graph.open(f"tftp://{place}/nothing-here", "raw")
