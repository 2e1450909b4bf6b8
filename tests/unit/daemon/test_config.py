"""The daemon's file of settings, and what --check says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hostel.daemon.config import Config, Limits, Port, Rule, read_config
from hostel.errors import UsageError
from hostel.net.address import TcpAddress


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config"
    path.write_text(text)
    return read_config(path, Config(Path("/s")))


def test_everything_can_be_said(tmp_path: Path) -> None:
    text = """
[daemon]
socket = "/a"
read_only_socket = "/b"
group = "kvm"
[limits]
clients = 7
unopened_seconds = 2
[tcp]
listen = "[::1]:99"
[tls]
certificates = "/pki"
allowed_names = ["CN=a"]
auth = "scram"
[auth]
passwords = "/p"
[[rule]]
user = "ann"
allow = ["domain.*", "connect.getattr"]
name = "web*"
"""
    assert read(tmp_path, text) == Config(
        Path("/a"), Path("/b"), "kvm", Limits(clients=7, unopened_seconds=2),
        (Rule("ann", ("domain.*", "connect.getattr"), "web*"),),
        Port(TcpAddress("::1", "99"), True),
        Port(TcpAddress("", "16514"), True, "/pki", ("CN=a",)),
        Path("/p"),
    )  # fmt: skip


def test_what_is_not_said_stays(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Config(Path("/s"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[nosuch]", r"there is no \[nosuch\]"),
        ("[limits]\nnosuch = 1", r"\[limits\] has no 'nosuch'"),
        ("[limits]\nclients = 0", "clients = 0 is too small"),
        ("[limits]\nclients = 'many'", "clients must be int, not 'many'"),
        ("[limits]\nclients = true", "clients must be int, not True"),
        ("[daemon]\nsocket = 1", "socket must be str"),
        ("[[rule]]\nuser = 'a'", "needs a user, and in allow"),
        ("[[rule]]\nallow = ['domain.read']", "needs a user"),
        ("[[rule]]\nuser = 'a'\nallow = ['domain']", "words like 'domain.read'"),
        ("[tcp]", r"needs \[auth\] with passwords"),
        ("[tcp]\nauth = 'gssapi'", 'must be "none" or "scram"'),
        ("[tls]", "needs certificates"),
        ("[", "Invalid|Expected"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read(tmp_path, text)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read '.*nosuch': No such file"):
        read_config(tmp_path / "nosuch", Config(Path("/s")))


def check(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hostel", "daemon", "--check", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_check_says_what_a_start_would_do(tmp_path: Path) -> None:
    done = check("--socket", f"{tmp_path}/s", "--state", f"{tmp_path}/state")
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == f"socket {tmp_path}/s"
    assert f"definitions {tmp_path}/state/config" in lines
    assert lines[-1] == "ready to start"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("option", "reason"),
    [("/" + "x" * 200, "is too long"), ("/dev/null/s", "nothing can be made in '/dev/null'")],
)
def test_check_says_why_a_start_would_fail(tmp_path: Path, option: str, reason: str) -> None:
    done = check("--socket", option, "--state", str(tmp_path))
    assert done.returncode == 1
    assert reason in done.stderr


def test_check_reads_the_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[limits]\nclients = -1\n")
    done = check("--config", f"{tmp_path}/config")
    assert done.returncode == 1
    assert "clients = -1 is too small" in done.stderr
