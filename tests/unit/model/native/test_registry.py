"""The registry of native formats: every row can be called, and what is missing says so."""

from __future__ import annotations

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.native.registry import FORMATS, read_native, write_native

EMPTY = "<domain type='test'><name>x</name><memory>1024</memory><os><type>hvm</type></os></domain>"
# Any word may be a program, and QEMU needs no options.
READ = [name for name, row in FORMATS.items() if row.reader and name != "qemu-argv"]
WRITTEN = [name for name, row in FORMATS.items() if row.writer]


@pytest.mark.parametrize("name", READ)
def test_nonsense_is_refused_by_every_reader(name: str) -> None:
    for text in ("", "\0", "]]>", "= = =", "\udcff"):
        with pytest.raises(ModelError):
            read_native(name, text)


@pytest.mark.parametrize("name", WRITTEN)
def test_document_of_another_hypervisor_is_refused_by_every_writer(name: str) -> None:
    for xml in (EMPTY, "", "<network/>"):
        with pytest.raises(ModelError):
            write_native(name, xml)


def test_format_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    for call in (read_native, write_native):
        with pytest.raises(ModelError, match=r"unsupported config type sexpr; known are .*xen-xl") as refusal:
            call("sexpr", "")
        assert refusal.value.code == ErrorCode.INVALID_ARG


def test_format_that_is_not_written_says_so() -> None:
    with pytest.raises(ModelError, match="LXC's lxc-tools can be read, and not be written") as refusal:
        write_native("lxc-tools", EMPTY)
    assert refusal.value.code == ErrorCode.OPERATION_UNSUPPORTED
