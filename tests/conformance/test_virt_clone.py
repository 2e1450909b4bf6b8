"""virt-clone's XML, messages and exit codes against the real virt-clone 4.1, and what it leaves where it fails."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hostel
from hostel.block import graph
from hostel.cli.main import main
from hostel.cli.output import Output
from hostel.cli.virt_clone import main as virt_clone
from hostel.cli.virt_clone.arguments import parser
from hostel.cli.virt_clone.copy import copy_file
from hostel.errors import UsageError
from hostel.img.inspect import inspect
from support import loop, virtinst

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


SESSION_MACHINE = """<domain type='qemu'><name>web</name><memory>65536</memory><os><type>hvm</type></os><devices>
<disk type='{type}'><driver name='qemu' type='{format}'/><source {source}/><target dev='vda' bus='virtio'/></disk>
</devices></domain>
"""


def copied(source: Path, format: str, *more: str, type: str = "file") -> int:
    """Copy a machine of our session that has one disk; returns the exit code."""
    place = f"{'dev' if type == 'block' else 'file'}='{source}'"
    Path("one.xml").write_text(SESSION_MACHINE.format(type=type, format=format, source=place))
    return main(["virt-clone", "--connect", "qemu:///session", "--original-xml", "one.xml", "--name", "copy", *more])


def read(path: Path, format: str) -> bytes:
    """What a machine reads of an image."""
    with graph.open(str(path), format) as node:
        return bytes(node.read(0, node.length))


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


def overlay(path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", str(path.with_name("base.qcow2")), "1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", str(path))


def with_data_file(path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={path}.raw", str(path), "1M")


def flat(path: Path) -> None:
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", str(path), "1M")


def qemu_img(*words: str) -> None:
    assert main(["qemu-img", *words]) == 0


@pytest.mark.requires_tool("qemu-system-x86_64")
@pytest.mark.parametrize(("make", "format"), [(overlay, "qcow2"), (with_data_file, "qcow2"), (flat, "vmdk")])
def test_the_copy_of_an_image_that_names_other_files_stands_alone(
    make: Callable[[Path], None], format: str, directory: Path
) -> None:
    """Its bytes would name the original's files, or from elsewhere none."""
    source = directory / f"one.{format}"
    make(source)
    with graph.open(str(source), format, read_only=False) as node:
        node.pwrite(65536, memoryview(b"original" * 64))
    (directory / "elsewhere").mkdir()
    copy = directory / "elsewhere" / f"two.{format}"
    assert copied(source, format, "--file", str(copy)) == 0
    before = read(source, format)
    assert read(copy, format) == before
    assert inspect(str(copy)).names == ()
    with graph.open(str(copy), format, read_only=False) as node:
        node.pwrite(0, memoryview(b"the copy" * 64))
    assert read(source, format) == before


@pytest.mark.requires_tool("qemu-system-x86_64")
def test_an_image_that_names_files_of_others_is_not_copied(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "mine").mkdir()
    source, secret = directory / "mine" / "one.qcow2", directory / "web.img"
    qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", str(secret), "-F", "raw", str(source), "1M")
    capsys.readouterr()
    assert copied(source, "qcow2", "--file", "two.qcow2") == 1
    assert "is not taken as it is" in capsys.readouterr().err
    assert not (directory / "two.qcow2").exists()
    assert copied(source, "qcow2", "--file", "two.qcow2", "--check", "trust=off") == 0
    assert read(directory / "two.qcow2", "qcow2") == secret.read_bytes()


@pytest.mark.requires_tool("qemu-system-x86_64")
@pytest.mark.parametrize("in_pool", [False, True], ids=["file", "volume"])
def test_a_raw_disk_is_copied_byte_for_byte_whatever_its_guest_wrote_into_it(directory: Path, in_pool: bool) -> None:
    """A pool takes it for the image that its first bytes say it is; virt-clone's copy is another disk."""
    source = directory / "pool" / "one.img"
    source.parent.mkdir()
    qemu_img("create", "-q", "-f", "qcow2", str(source), "1M")
    if in_pool:
        words = ["pool-create-as", "mine", "dir", "--target", str(source.parent)]
        assert main(["virsh", "-q", "-c", "qemu:///session", *words]) == 0
    copy = source.with_name("two.img")
    assert copied(source, "raw", "--file", str(copy)) == 0
    assert copy.read_bytes() == source.read_bytes()


@pytest.mark.requires_tool("qemu-system-x86_64")
def test_a_device_is_filled_where_it_may_be_overwritten(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every byte of it: what was there before must not shine through the holes."""
    if not loop.may_attach():
        pytest.skip("no loop devices here")
    source = directory / "web.img"
    with loop.device(directory / "back", 3 << 20) as name:
        device = Path(name)
        device.write_bytes(b"old" * (1 << 20))
        assert copied(source, "raw", "--file", name) == 1
        assert f"This will overwrite the existing path '{name}' (Use --check path_exists=off" in capsys.readouterr().err
        assert copied(source, "raw", "--file", name, "--check", "path_exists=off") == 0
        assert device.read_bytes()[: 1 << 20] == source.read_bytes()
        assert copied(device, "raw", "--file", "three.img", "--name", "other", "--check", "all=off", type="block") == 0
        assert (directory / "three.img").read_bytes() == device.read_bytes()
        (directory / "data").write_bytes(bytes(4 << 20))
        assert copied(directory / "data", "raw", "--file", name, "--check", "all=off") == 1
        assert "the device has 3145728 bytes, and the original 4194304" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("element", "named"),
    [("<nvram/>", "<nvram/>"), ("<nvram type='file'><source file='{dir}/v.fd'/></nvram>", '<source file="{dir}/mail')],
)
def test_variables_are_its_own_however_they_are_written(
    element: str, named: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.sub("<nvram>.*</nvram>", element.replace("{dir}", str(directory)), (directory / "web.xml").read_text())
    (directory / "web.xml").write_text(text)
    code, out, err = ours(["--original-xml", "web.xml", "--auto-clone", "--name", "mail", "--print-xml"], capsys)
    assert code == 0, err
    assert named.replace("{dir}", str(directory)) in out


def test_two_disks_get_two_files(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--original-xml", "web.xml", "--name", "mail", "--file", "a.img", "--file", "a.img", "--print-xml"]
    assert ours(words, capsys)[2].endswith(f"two disks cannot both be copied to '{directory}/a.img'")


def test_no_file_is_made_among_devices(directory: Path) -> None:
    with pytest.raises(UsageError, match="no device: make the volume first"):
        copy_file("web.img", "/dev/hostel-no-such-device", sparse=True)
    assert not os.path.lexists("/dev/hostel-no-such-device")
