"""virt-clone's XML, messages and exit codes against the real virt-clone 4.1, and what it leaves where it fails."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import hostel
from hostel.cli.main import main
from hostel.cli.output import Output
from hostel.cli.virt_clone import main as virt_clone
from hostel.cli.virt_clone.arguments import parser
from hostel.cli.virt_clone.copy import copy_file
from hostel.errors import UsageError
from support import virtinst

TEST = "test:///default"
requires = pytest.mark.requires_tool("virt-clone")
MACHINE = """<domain type='test' id='3'>
  <name>web</name>
  <uuid>7c1f3a52-0f0e-4b34-9f3a-1d2c3b4a5968</uuid>
  <title>Web</title>
  <memory unit='KiB'>65536</memory>
  <os>
    <type arch='i686'>hvm</type>
    <loader readonly='yes' type='pflash'>/l</loader>
    <nvram>{dir}/web_VARS.fd</nvram>
  </os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source file='{dir}/web.img'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <disk type='file' device='disk'>
      <source file='{dir}/data'/>
      <target dev='hdb' bus='ide'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='{dir}/cd.iso'/>
      <target dev='hdc' bus='ide'/>
      <readonly/>
    </disk>
    <disk type='file' device='floppy'>
      <target dev='fda' bus='fdc'/>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:01:02:03'/>
      <source network='default'/>
      <target dev='vnet7'/>
    </interface>
    <channel type='unix'>
      <source mode='bind' path='/run/web.org.qemu.guest_agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
    <graphics type='vnc' port='5901' autoport='no'/>
  </devices>
</domain>
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("web.img", "data", "cd.iso"):
        with (tmp_path / name).open("wb") as stream:
            stream.write(name.encode())
            stream.truncate(1 << 20)
    (tmp_path / "web.xml").write_text(MACHINE.replace("{dir}", str(tmp_path)))
    for name in ("HOME", "HOSTEL_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain(text: str) -> str:
    text = re.sub(r"<uuid>[0-9a-f-]{36}</uuid>", "<uuid>U</uuid>", text)
    return re.sub(r"(00:16:3e|52:54:00)(:[0-9a-f]{2}){3}", "MAC", text).rstrip("\n")


def real(words: list[str], directory: Path) -> tuple[int, str, str]:
    environment = {"HOME": str(directory / "home"), "LC_ALL": "C"}
    code, out, err = virtinst.run(
        "virt-clone", ["--connect", TEST, *words], cwd=str(directory), environment=environment
    )
    return code, plain(out), plain(err)


def ours(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["virt-clone", "--connect", TEST, *words])
    said = capsys.readouterr()
    return code, plain(said.out), plain(said.err)


@requires
@pytest.mark.parametrize(
    "command",
    [
        "--auto-clone",
        "--auto-clone --name mail --uuid 7c1f3a52-0f0e-4b34-9f3a-1d2c3b4a5969",
        "--name mail --file {dir}/a.img --file {dir}/b.img --mac 00:16:3e:00:00:01",
        "--name mail --file {dir}/a.img --skip-copy hdb",
        "--name mail --auto-clone --force-copy hdc --force-copy fda",
        "--name mail --file {dir}/web.img --file {dir}/data --preserve-data --check path_in_use=off",
        "--name mail --auto-clone --nvram /v/mail.fd",
    ],
)
def test_the_copys_document_is_that_of_virt_clone(
    command: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--original-xml", "web.xml", "--print-xml", *shlex.split(command.replace("{dir}", str(directory)))]
    assert ours(words, capsys) == real(words, directory)


@requires
@pytest.mark.parametrize(
    "command",
    [
        "--auto-clone",
        "--original nosuch --auto-clone",
        "--original test --auto-clone",
        "--original-xml web.xml",
        "--original-xml web.xml --file {dir}/a.img",
        "--original-xml web.xml --auto-clone --name test",
    ],
)
def test_errors_are_those_of_virt_clone(command: str, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command.replace("{dir}", str(directory)))
    assert ours(words, capsys) == real(words, directory)


@requires
def test_every_option_of_the_help_is_taken(directory: Path) -> None:
    theirs = set(re.findall(r"(?<![\w-])(--[a-zA-Z][\w-]*)", real(["--help"], directory)[1]))
    known = {flag for action in parser()._actions for flag in action.option_strings}
    assert theirs - known == set()


def test_disks_are_copied_with_their_holes_and_a_machine_is_defined(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "web_VARS.fd").write_bytes(b"variables")
    code, out, err = ours(["--original-xml", "web.xml", "--auto-clone"], capsys)
    assert (code, out.splitlines()[-1]) == (0, "Clone 'web-clone' created successfully."), err
    for name, copy in (("web.img", "web-clone.img"), ("data", "data-clone")):
        assert (directory / copy).read_bytes() == (directory / name).read_bytes()
        assert (directory / copy).stat().st_blocks * 512 < 64 << 10
    assert (directory / "web-clone_VARS.fd").read_bytes() == b"variables"


def test_nonsparse_writes_every_byte(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ours(["--original-xml", "web.xml", "--auto-clone", "--nonsparse"], capsys)[0] == 0
    assert (directory / "web-clone.img").stat().st_blocks * 512 >= 1 << 20


def test_a_file_that_is_there_is_never_overwritten(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--original-xml", "web.xml", "--name", "mail", "--file", "cd.iso", "--file", "b.img", "--check", "all=off"]
    code, _, err = ours(words, capsys)
    assert code == 1
    assert f"This will overwrite the existing path '{directory}/cd.iso'" in err
    assert (directory / "cd.iso").read_bytes().startswith(b"cd.iso")


def test_a_copy_that_fails_leaves_nothing(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second disk is written by somebody, the first one is copied by then."""
    before = sorted(os.listdir(directory))
    words = [sys.executable, "-m", "hostel", "qemu-io", "-f", "raw", "data"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(b"write 0 512\n")
        writer.stdin.flush()
        while b"wrote" not in writer.stdout.readline():
            pass
        code, _, err = ours(["--original-xml", "web.xml", "--auto-clone"], capsys)
    assert code == 1
    assert "data cannot be copied" in err
    assert sorted(os.listdir(directory)) == before


def test_a_machine_that_cannot_be_defined_leaves_no_disk(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir(directory))
    words = ["--original-xml", "web.xml", "--auto-clone", "--uuid", "6695eb01-f6a4-8304-79aa-97f2502e193f"]
    assert ours(words, capsys)[0] == 1  # the UUID of the machine that is there
    assert sorted(os.listdir(directory)) == before


def test_a_target_is_made_anew_or_not_at_all(directory: Path) -> None:
    with pytest.raises(UsageError, match="File exists"):
        copy_file("web.img", "data", sparse=True)
    assert (directory / "data").read_bytes().startswith(b"data")


def test_a_machine_of_the_name_is_replaced_once_the_disks_are_whole(directory: Path) -> None:
    with hostel.open(TEST) as connection:
        words = ["--original-xml", "web.xml", "--auto-clone", "--name", "test", "--replace", "--quiet"]
        assert virt_clone.run(connection, parser().parse_args(words), Output(quiet=True)) == 0
        assert [domain.name for domain in connection.domains()] == ["test"]
        assert f"{directory}/test.img" in connection.domain("test").xml()
