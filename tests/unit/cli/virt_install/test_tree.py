"""Documents that exist are changed where they are asked to, and keep their shape elsewhere."""

from __future__ import annotations

import pytest
from lxml import etree

from hostel.cli.virt_install import tree
from hostel.cli.virt_install.edit import Edit
from hostel.cli.virt_install.part import Part

DOCUMENT = """<disk type="file">
  <source file="/a"/>
  <!-- kept -->
  <target dev="vda"/>
</disk>"""


def changed(text: str, *values: tuple[str, str | None]) -> str:
    part = Part("disk", base=etree.fromstring(text))
    for path, value in values:
        part.put(path, value)
    return tree.text_of(part.element())


def test_a_value_is_changed_in_its_place() -> None:
    assert changed(DOCUMENT, ("source/@file", "/b")) == DOCUMENT.replace("/a", "/b") + "\n"


def test_what_is_new_stands_last_on_a_line_of_its_own() -> None:
    expected = DOCUMENT.replace("\n</disk>", '\n  <boot order="1"/>\n</disk>\n')
    assert changed(DOCUMENT, ("boot/@order", "1")) == expected
    inside = DOCUMENT.replace('<target dev="vda"/>', '<target dev="vda">\n    <x y="1"/>\n  </target>')
    assert changed(DOCUMENT, ("target/x/@y", "1")) == inside + "\n"


def test_an_element_that_loses_its_last_value_goes_with_its_line() -> None:
    assert changed(DOCUMENT, ("source/@file", None)) == DOCUMENT.replace('  <source file="/a"/>\n', "") + "\n"


def test_an_element_that_is_filled_before_it_is_emptied_stays_where_it_is() -> None:
    before = DOCUMENT.replace('file="/a"', 'dev="/a"')
    assert changed(before, ("source/@dev", None), ("source/@file", "/a")) == DOCUMENT + "\n"


def test_a_flag_that_is_off_is_taken_out_whatever_it_has() -> None:
    part = Part("disk", base=etree.fromstring('<disk>\n  <transient shareBacking="yes"/>\n</disk>'))
    part.remove("transient")
    assert tree.text_of(part.element()) == "<disk/>"


def test_values_are_read_from_what_exists_until_they_are_put() -> None:
    part = Part("disk", base=etree.fromstring(DOCUMENT))
    assert (part.get("@type"), part.get("target/@dev"), part.get("driver/@name")) == ("file", "vda", None)
    part.default("@type", "block")
    part.put("target/@dev", "vdb")
    assert (part.get("@type"), part.get("target/@dev")) == ("file", "vdb")


def test_clearing_takes_every_sibling_out() -> None:
    part = Part("graphics", base=etree.fromstring("<graphics><listen a='1'/><listen a='2'/><x/></graphics>"))
    part.clear("listen")
    assert tree.text_of(part.element()) == "<graphics><x/></graphics>"


@pytest.mark.parametrize(("keep", "after"), [(True, "<a><b/><c/></a>"), (False, "<a><c/></a>")])
def test_emptying_leaves_the_element_or_nothing(keep: bool, after: str) -> None:
    part = Part("a", base=etree.fromstring("<a><b x='1'><y/></b><c/></a>"))
    part.put("b/@z", "1")
    part.empty("b", keep=keep)
    assert tree.text_of(part.element()) == after


def test_what_is_made_anew_has_the_same_values_and_edits_and_is_changed_alone() -> None:
    part = Part("disk")
    part.put("source/host[1]/@name", "b")
    part.edits.append(Edit("create", "./readonly"))
    part.adopt(part.element())
    other = part.anew()
    other.put("@type", "network")
    inside = '>\n  <source>\n    <host name="b"/>\n  </source>\n  <readonly/>\n</disk>\n'
    for _ in range(2):
        assert tree.write(part.element()) == f"<disk{inside}"
    assert tree.write(other.element()) == f'<disk type="network"{inside}'


def test_a_prefix_has_its_namespace() -> None:
    part = Part("domain")
    part.put("qemu:commandline/qemu:arg[1]/@value", "b")
    part.put("qemu:commandline/qemu:arg[0]/@value", "a")
    text = tree.write(part.element())
    assert '<qemu:commandline xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">' in text
    assert text.index('value="a"') < text.index('value="b"')
