"""What people write on domains, and what is counted of them: our virsh beside real virsh, on the test driver."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from hostel.drivers.registry import open_drivers
from hostel.drivers.store import Directories
from hostel.objects import Connection
from support.virsh import real_lines, run_lines

pytestmark = [pytest.mark.requires_tool("virsh")]
LINES = (
    "desc test",
    "desc test --title",
    "desc test a text of words",
    "desc test",
    "desc test --config",
    "desc test --title --config 'the title'",
    "desc test --title",
    "desc test --title --config",
    "desc test --current --live",
    "desc test --live of what runs",
    "dumpxml test --xpath /domain/description",
    "dumpxml test --inactive --xpath /domain/title",
    "desc test ''",
    "desc test",
    "desc nothing",
    "metadata test http://one.example",
    "metadata test http://one.example --set '<a><b c=\"1\">text</b></a>'",
    "metadata test http://one.example --key one --set '<a><b c=\"1\">text</b></a>'",
    "metadata test http://one.example",
    "metadata test http://one.example --config",
    "metadata test http://one.example --live --config",
    "metadata test http://two.example --key two --set '<z/>' --live --config",
    "dumpxml test --xpath /domain/metadata",
    "metadata test http://one.example --key other --set '<new/>'",
    "dumpxml test --xpath /domain/metadata",
    "metadata test http://one.example --remove",
    "metadata test http://one.example",
    "metadata test http://two.example --config",
    "metadata test http://two.example --remove --set x",
    "metadata test http://two.example --key '1 2' --set '<z/>'",
    "metadata test http://three.example --remove",
    "vcpucount test",
    "vcpucount test --maximum",
    "vcpucount test --active --live",
    "vcpucount test --config --maximum",
    "vcpucount test --current --live",
    "vcpucount test --maximum --current --live",
    "vcpucount test --active --maximum",
    "vcpucount nothing",
    "domcontrol test",
    "destroy test",
    "vcpucount test",
    "vcpucount test --live",
    "domcontrol test",
    "metadata test http://two.example",
    "metadata test http://two.example --live",
)


def test_the_lines_give_what_virsh_gives(tmp_path: Path) -> None:
    directories = Directories.under(tmp_path)
    answers = run_lines(
        "test:///default",
        lambda uri, *, read_only: Connection(open_drivers(uri, directories), read_only=read_only),
        map(shlex.split, LINES),
        quiet=True,
    )
    assert [(out, err) for _, out, err in answers] == real_lines("test:///default", LINES)
