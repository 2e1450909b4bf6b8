"""Where screens are, through our virsh and real virsh on the same daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostel
from hostel.cli.virsh.session import Connection
from hostel.drivers.store import Directories
from support import hosteld
from support.virsh import Real, run_lines

pytestmark = pytest.mark.requires_tool("virsh")
GRAPHICS = {
    "plain": "<graphics type='vnc' port='5907' listen='127.0.0.1' passwd='p'/>",
    "any": "<graphics type='vnc' port='5901' listen='0.0.0.0'/><graphics type='spice' port='5902' listen='::'/>",
    "six": "<graphics type='spice' port='5903' tlsPort='5904' listen='fe80::1' passwd='q'/>",
    "socket": "<graphics type='vnc'><listen type='socket' socket='/a/b'/></graphics>",
    "none": "<graphics type='sdl' display=':0'/>",
}
LINES = ("{}", "{} --all", "{} --include-password --all", "{} --type spice", "{} --type nope", "{} --type vnc --all")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosteld.Hosteld]:
    folder: Path = tmp_path_factory.mktemp("documents")
    with hosteld.process() as served:
        holder = subprocess.Popen(
            ["virsh", "-q", "-c", served.uri()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdin is not None and holder.stdout is not None
        for name, graphics in GRAPHICS.items():
            xml = f"<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os>"
            (folder / name).write_text(f"{xml}<devices>{graphics}</devices></domain>")
            holder.stdin.write(f"create {folder / name}\n")
        holder.stdin.write("domid none\n")
        holder.stdin.flush()
        while not holder.stdout.readline().strip().isdigit():
            pass
        try:
            yield served
        finally:
            holder.communicate("quit\n", timeout=20)


@pytest.mark.parametrize("name", GRAPHICS)
def test_places_are_virshs(daemon: hosteld.Hosteld, name: str, tmp_path: Path) -> None:
    line = "; ".join(f"domdisplay {words.format(name)}" for words in LINES)

    def opener(uri: str, *, read_only: bool) -> Connection:
        return hostel.open(uri, Directories.under(tmp_path), read_only=read_only)

    ours = run_lines(daemon.uri(), opener, [[line]])[0]
    assert ours == Real(daemon.uri()).run(line)
