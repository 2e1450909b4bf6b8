"""A document under construction keeps virt-install's order, whatever order it is filled in."""

from __future__ import annotations

import pytest

from hostel.cli.virt_install.part import Part
from hostel.cli.virt_install.tree import write
from hostel.errors import ModelError


def text(part: Part) -> str:
    return write(part.element())


def test_values_stand_in_the_declared_order_and_the_rest_as_it_was_put() -> None:
    part = Part("disk")
    for path, value in (
        ("boot/@order", "1"), ("serial", "S"), ("readonly", ""), ("target/@bus", "ide"), ("source/@file", "/a"),
        ("target/@dev", "hda"), ("@device", "disk"), ("driver/@cache", "none"), ("@type", "file"),
    ):  # fmt: skip
        part.put(path, value)
    assert text(part) == (
        '<disk type="file" device="disk">\n  <driver cache="none"/>\n  <source file="/a"/>\n'
        '  <target dev="hda" bus="ide"/>\n  <serial>S</serial>\n  <readonly/>\n  <boot order="1"/>\n</disk>\n'
    )


def test_an_element_may_have_text_and_attributes() -> None:
    part = Part("rng")
    part.put("backend/@model", "random")
    part.put("backend", "/dev/urandom")
    assert text(part) == '<rng>\n  <backend model="random">/dev/urandom</backend>\n</rng>\n'


def test_indexes_name_siblings_and_conditions_choose_among_them() -> None:
    part = Part("graphics")
    part.put("listen[1]/@type", "b")
    part.put("listen[0]/@type", "a")
    assert text(part) == '<graphics>\n  <listen type="a"/>\n  <listen type="b"/>\n</graphics>\n'
    part = Part("serial")
    part.put("source[@mode='connect']/@host", "there")
    part.put("source[@mode='bind']/@host", "here")
    assert text(part) == (
        '<serial>\n  <source mode="bind" host="here"/>\n  <source mode="connect" host="there"/>\n</serial>\n'
    )


def test_a_namespace_is_declared_where_it_begins() -> None:
    part = Part("domain", ("*",))
    part.put("metadata/libosinfo:libosinfo/libosinfo:os/@id", "http://x")
    assert text(part).count("xmlns:libosinfo=") == 1
    assert '<libosinfo:os id="http://x"/>' in text(part)


def test_a_denied_value_is_remembered_and_not_written() -> None:
    part = Part("domain", ("*",))
    part.put("features/acpi", None)
    assert part.was_put("features/acpi")
    assert not part.has("features")
    assert text(part) == "<domain/>\n"


def test_a_default_does_not_replace() -> None:
    part = Part("x", ("*",))
    part.default("@a", "1")
    part.default("@a", "2")
    part.default("@b", None)
    assert (part.get("@a"), part.was_put("@b")) == ("1", False)


def test_clearing_takes_everything_below() -> None:
    part = Part("domain", ("*",))
    for path in ("os/boot[0]/@dev", "os/boot[1]/@dev", "os/bootmenu/@enable"):
        part.put(path, "x")
    part.clear("os/boot")
    assert part.paths() == ["os/bootmenu/@enable"]


@pytest.mark.parametrize("value", ["a\0b", "a\x1bb", "\ufffe"])
def test_a_character_that_no_document_can_have_is_refused(value: str) -> None:
    with pytest.raises(ModelError, match="disk/serial"):
        Part("disk").put("serial", value)


def test_markup_in_values_stays_text() -> None:
    part = Part("domain", ("*",))
    part.put("title", "<a>&'\"")
    part.put("@x", "\"<'>")
    assert text(part) == '<domain x="&quot;&lt;\'&gt;">\n  <title>&lt;a&gt;&amp;\'"</title>\n</domain>\n'
