"""Reading and writing what is in the header cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostel.block.formats.qcow2 import header as headers
from hostel.block.formats.qcow2.header import Preamble
from hostel.block.formats.qcow2.layout import Extension, ExtensionType, Header, Incompatible
from hostel.block.options import Value
from hostel.errors import BlockError, InvalidImage, NoSpace, UnsupportedFeature
from support import qcow2

KNOWN = {int(kind) for kind in ExtensionType}


def preamble(**options: Value) -> Preamble:
    return headers.parse(qcow2.create(1 << 20, options))


extensions = st.lists(
    st.builds(Extension, st.integers(1, (1 << 32) - 1).filter(lambda kind: kind not in KNOWN), st.binary(max_size=40)),
    max_size=5,
)


@given(
    extensions, st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60), st.booleans()
)
def test_what_is_laid_out_is_read_back(found: list[Extension], name: str, old: bool) -> None:
    given = preamble(compat="0.10" if old else "1.1")._replace(extensions=tuple(found), backing_file=name or None)
    data = headers.serialise(given).ljust(1 << 16, b"\0")
    read = headers.parse(data)
    assert read.extensions == given.extensions
    assert read.backing_file == given.backing_file
    assert read.header.size == given.header.size
    assert headers.serialise(read).ljust(1 << 16, b"\0") == data


def test_header_bytes_beyond_those_we_know_are_kept() -> None:
    data = bytearray(headers.serialise(preamble()).ljust(1 << 16, b"\0"))
    longer = data[: Header.SIZE] + b"unknown!" * 2 + data[Header.SIZE :]
    longer[100:104] = (Header.SIZE + 16).to_bytes(4, "big")
    read = headers.parse(bytes(longer))
    assert read.unknown_fields == b"unknown!" * 2
    assert headers.serialise(read) == bytes(longer)[: len(headers.serialise(read))]


def test_what_follows_a_version_2_header_are_extensions_and_no_fields() -> None:
    # 0xe2792aca where version 3 has its incompatible features.
    old = preamble(compat="0.10", backing_file="base", backing_fmt="raw")
    data = headers.serialise(old)
    assert data[72:76] == bytes.fromhex("e2792aca")
    read = headers.parse(data.ljust(1 << 16, b"\0"))
    assert (read.header.incompatible_features, read.header.refcount_order) == (0, 4)
    assert (read.backing_file, read.backing_format) == ("base", "raw")


def test_a_name_that_is_no_text_is_kept_byte_for_byte() -> None:
    given = preamble()._replace(backing_file=b"b\xff\xfe".decode(errors="surrogateescape"))
    data = headers.serialise(given)
    assert data.endswith(b"b\xff\xfe")
    assert headers.parse(data.ljust(1 << 16, b"\0")).backing_file == given.backing_file


@pytest.mark.parametrize("length", [1, 1023])
def test_a_backing_name_may_have_1023_bytes(length: int) -> None:
    data = headers.serialise(preamble()._replace(backing_file="x" * length))
    assert headers.parse(data.ljust(1 << 16, b"\0")).backing_file == "x" * length
    with pytest.raises(InvalidImage, match="Backing file name too long"):
        headers.serialise(preamble()._replace(backing_file="x" * 1024))


def test_what_does_not_fit_into_the_first_cluster_is_refused() -> None:
    with pytest.raises(NoSpace, match="do not fit into one cluster"):
        headers.serialise(preamble(cluster_size=512)._replace(backing_file="x" * 400))


def test_an_unknown_feature_is_refused_by_the_name_that_the_image_has_for_it() -> None:
    table = bytes((0, 9)) + b"quantum clusters".ljust(46, b"\0") + bytes((1, 9)) + b"compatible".ljust(46, b"\0")
    given = preamble()
    names = tuple(each for each in given.extensions if each.type != ExtensionType.FEATURE_NAMES)
    given = given._replace(
        header=given.header.replace(incompatible_features=1 << 9 | 1 << 40),
        extensions=(*names, Extension(int(ExtensionType.FEATURE_NAMES), table)),
    )
    with pytest.raises(UnsupportedFeature) as caught:
        headers.parse(headers.serialise(given).ljust(1 << 16, b"\0"))
    assert caught.value.message == (
        "Unsupported qcow2 feature(s): quantum clusters, Unknown incompatible feature: 10000000000"
    )


@pytest.mark.parametrize(
    ("kind", "feature", "message"),
    [
        (0, Incompatible.COMPRESSION, "qcow2: Compression type incompatible feature bit must not be set"),
        (1, 0, "qcow2: Compression type incompatible feature bit must be set"),
        (2, 0, "qcow2: unknown compression type: 2"),
    ],
)
def test_a_compression_and_its_feature_that_contradict_are_refused(kind: int, feature: int, message: str) -> None:
    given = preamble()
    given = given._replace(header=given.header.replace(compression_type=kind, incompatible_features=int(feature)))
    with pytest.raises(BlockError) as caught:
        headers.parse(headers.serialise(given).ljust(1 << 16, b"\0"))
    assert caught.value.message == message


def test_unknown_compatible_and_autoclear_bits_are_no_hindrance() -> None:
    given = preamble()
    header = given.header.replace(compatible_features=1 << 50, autoclear_features=1 << 51 | 1)
    read = headers.parse(headers.serialise(given._replace(header=header)).ljust(1 << 16, b"\0"))
    assert read.header.compatible_features == 1 << 50
    assert headers.unknown_autoclear(read.header) == 1 << 51


def test_an_extension_is_replaced_added_in_front_and_dropped() -> None:
    given = preamble()._replace(
        extensions=(Extension(7, b"seven"), Extension(int(ExtensionType.BACKING_FORMAT), b"raw"))
    )
    replaced = headers.with_extension(given, ExtensionType.BACKING_FORMAT, b"qcow2")
    assert replaced.extensions == (Extension(int(ExtensionType.BACKING_FORMAT), b"qcow2"), Extension(7, b"seven"))
    assert headers.with_extension(given, ExtensionType.BACKING_FORMAT, None).extensions == (Extension(7, b"seven"),)


@given(st.binary(max_size=300))
def test_any_bytes_raise_nothing_but_a_block_error(tail: bytes) -> None:
    for head in (b"", b"QFI\xfb", b"QFI\xfb\0\0\0\3", qcow2.create(0)[:104]):
        try:
            headers.parse(head + tail)
        except BlockError as error:
            assert error.message


@pytest.mark.parametrize("gap", [1, 4, 7])
def test_an_extension_whose_head_does_not_end_before_the_backing_name_is_refused(gap: int) -> None:
    image = bytearray(qcow2.create(1 << 20))
    image[8:16] = (Header.SIZE + gap).to_bytes(8, "big")
    image[16:20] = (1).to_bytes(4, "big")
    with pytest.raises(InvalidImage, match=r"^Header extension too large$"):
        headers.parse(bytes(image[:65536]))
