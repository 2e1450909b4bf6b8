"""Every option of every option, with a value that it may have and with one of another kind, beside the real virt-xml.

The command lines are made from our own tables, whose names are held against the real tool's elsewhere
(``test_virt_install``).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import hostel
from hostel.cli.output import Output
from hostel.cli.virt_install.registry import tables
from hostel.cli.virt_install.suboption import Kind, SubOptions
from hostel.cli.virt_xml.arguments import parser
from hostel.cli.virt_xml.main import run
from hostel.errors import HostelError
from hostel.objects import Connection
from support import virtinst

pytestmark = pytest.mark.requires_tool("virt-xml")
TEST: Final = "test:///default"
# Devices that the machine of the other tests does not have.
_DEVICES: Final = """
    <controller type='scsi' index='0'/><input type='tablet' bus='usb'/><audio id='1' type='none'/>
    <watchdog model='i6300esb'/><memballoon model='virtio'/><tpm><backend type='emulator'/></tpm><panic model='isa'/>
    <vsock><cid auto='yes'/></vsock><shmem name='a'/><memory model='dimm'><target><size>1</size></target></memory>
    <iommu model='intel'/><filesystem><source dir='/a'/><target dir='b'/></filesystem><parallel type='pty'/>
    <channel type='pty'><target type='virtio' name='a'/></channel><smartcard mode='host'/>
    <redirdev bus='usb' type='spicevmc'/>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>
"""
MACHINE: Final = (
    (Path(__file__).parents[1] / "data" / "virt_xml" / "machine.xml")
    .read_text()
    .replace("  </devices>", f"{_DEVICES}  </devices>")
)
_VALUES: Final = {Kind.NUMBER: "7", Kind.YES_NO: "yes", Kind.ON_OFF: "off", Kind.FLAG: "on", Kind.PATH: "/a/b"}
_WRONG: Final = "zz"
# Those of every device: tried with one of them.
_COMMON: Final = re.compile(r"address\.|xpath|alias\.|driver\.(ats|iommu|packed|page_per_vq)|clearxml")
_ENDS: Final = re.compile(r"(backend\.)?(source\.|protocol\.|log\.)")
_HAS_ALL: Final = ("disk", "serial")
# Ours says more, refuses what no machine has, or keeps what the real one loses: docs/compatibility/virt-install.md.
_OTHERWISE: Final = re.compile(
    r"--qemu-commandline env=|--(network|serial) xpath|--network (mac=|mac.address=|link.state=)|--graphics type=|"
    r"--controller address=|--sound codec|.*seclabel1|--smartcard certificate|--rng (device|backend)=|"
    r"--disk (size=|source.host1|xpath)|--(memory|vcpus) clearxml"
)


def commands(table: SubOptions) -> list[list[str]]:
    """Each of a table's options with a value, and with one of another kind."""
    found: list[list[str]] = []
    for sub in table.rows():
        name = table.flag.removeprefix("--")
        if name not in _HAS_ALL and (_COMMON.match(sub.name) or (_ENDS.match(sub.name) and name != "rng")):
            continue
        typed = sub.name.replace("[0-9]*", "1")
        words = [f"{typed}={value}" for value in dict.fromkeys((_VALUES.get(sub.kind, _WRONG), _WRONG))]
        found += [["--edit", table.flag, word] for word in words if not _OTHERWISE.match(f"{table.flag} {word}")]
    return found


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with hostel.open(TEST) as opened:
        yield opened


def ours(connection: Connection, words: list[str]) -> tuple[int, str, str]:
    output = Output(io.StringIO(), io.StringIO())
    try:
        code = run(connection, parser().parse_args(["--connect", TEST, *words]), output, MACHINE, io.StringIO())
    except HostelError as error:
        output.err.write(f"ERROR    {error}\n")
        code = 1
    assert isinstance(output.out, io.StringIO) and isinstance(output.err, io.StringIO)
    return plain(code, output.out.getvalue(), output.err.getvalue())


def plain(code: int, out: str, err: str) -> tuple[int, str, str]:
    """Without what is random, and with one word for what is no number."""
    err = re.sub(r"invalid literal for int\(\) with base 1[06]: '.*'|[\w.-]+: '.*' is not a whole number", "N", err)
    return code, re.sub(r"(00:16:3e|52:54:00)(:[0-9a-f]{2}){3}", "MAC", out).rstrip("\n"), err.rstrip("\n")


@pytest.mark.parametrize("name", [name for name in tables() if name not in ("xml", "iothreads")])
def test_each_option_changes_what_virt_xml_changes(
    name: str, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "HOSTEL_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir("/")
    lines = commands(tables()[name])
    expected = virtinst.run_several(
        "virt-xml", [["--connect", TEST, *words] for words in lines], given=MACHINE,
        environment={"LC_ALL": "C", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert len(expected) == len(lines)
    for words, real in zip(lines, expected, strict=True):
        assert ours(connection, words) == plain(*real), words
