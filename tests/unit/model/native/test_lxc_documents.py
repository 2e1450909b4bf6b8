"""Documents of containers, as LXC's driver completes them."""

from __future__ import annotations

import pytest

from hostel.errors import ModelError
from hostel.model.native.lxc.document import parse_document
from hostel.model.native.lxc.reading import PLATFORM

HEAD = "<domain type='lxc'><name>box</name><memory>65536</memory><os><type>exe</type><init>/init</init></os>"


def document(devices: str) -> str:
    return parse_document(f"{HEAD}<devices>{devices}</devices></domain>", PLATFORM).format()


def test_consoles_are_those_of_a_container() -> None:
    assert "<target type='lxc' port='0'/>" in document("<console type='pty'/>")


def test_program_that_runs_containers_is_named() -> None:
    assert f"<emulator>{PLATFORM.emulator}</emulator>" in document("")


@pytest.mark.parametrize("usage", ["usage='1' units='GiB'", "usage='1024' units='MiB'", "usage='1048576'"])
def test_memory_of_a_file_system_is_written_in_kib(usage: str) -> None:
    text = document(f"<filesystem type='ram'><source {usage}/><target dir='/run'/></filesystem>")
    assert "<source usage='1048576' units='KiB'/>" in text


def test_other_types_and_units_are_refused() -> None:
    with pytest.raises(ModelError, match="Expecting virt type to be 'lxc'"):
        parse_document(HEAD.replace("'lxc'", "'kvm'") + "</domain>", PLATFORM)
    with pytest.raises(ModelError, match=r"/domain/devices/filesystem\[1\]/source/@usage"):
        document("<filesystem type='ram'><source usage='1' units='cups'/><target dir='/run'/></filesystem>")
