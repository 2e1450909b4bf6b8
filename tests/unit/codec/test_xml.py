"""XML elements as annotated classes: what is read, what is written, what is refused, and that nothing is lost."""

from __future__ import annotations

import enum

import pytest

from hostel.codec.xml import (
    ON_OFF,
    STRING,
    UUID,
    YES_NO,
    Element,
    Unknown,
    attr,
    child,
    children,
    choice,
    content,
    enumeration,
    flag,
    hexadecimal,
    integer,
    text,
    texts,
    verbatim,
)
from hostel.errors import ErrorCode, ModelError


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class End(Element):
    alias: str | None = text(default=None)


class PciPlace(Element, tag="place", when={"type": "pci"}):
    slot: int = attr(hexadecimal(2), default=0)


class UsbPlace(Element, tag="place", when={"type": "usb"}):
    port: int = attr(integer())


class Size(Element, tag="size"):
    unit: str = attr(default="KiB")
    value: int = content(integer())


class Note(Element, tag="note", drop_empty=True):
    value: str | None = content(default=None)


class Argument(Element, tag="arg", namespace=("x", "http://example.org/x")):
    value: str = attr()


class Box(End, tag="box", keep_open=True):
    colour: Colour | None = attr(enumeration(Colour), default=None)
    mode: str = attr(choice("a", "b"), default="a")
    is_open: bool | None = attr(YES_NO, name="open", default=None)
    lit: bool | None = attr(ON_OFF, default=None)
    id: str | None = text(UUID, default=None)
    name: str | None = text(default=None)
    sealed: bool = flag(default=False)
    size: Size | None = child(Size, default=None)
    note: Note | None = child(Note, default=None)
    labels: list[str] = texts(STRING, tag="label", factory=list)
    places: list[PciPlace | UsbPlace] = children(PciPlace, UsbPlace, factory=list)
    foreign: str | None = verbatim(default=None)
    argument: Argument | None = child(Argument, default=None)


EVERYTHING = """\
<box colour='red' mode='b' open='yes' lit='off' xmlns:x='http://example.org/x'>
  <id>11111111-2222-3333-4444-555555555555</id>
  <name>a&lt;b&amp;&apos;&quot;</name>
  <sealed/>
  <size unit='MiB'>5</size>
  <note>kept</note>
  <label>one</label>
  <label>two</label>
  <place type='usb' port='3'/>
  <place type='pci' slot='0x0a'/>
  <foreign>
    <y:z xmlns:y="urn:y" a="1">text</y:z>
  </foreign>
  <x:arg value='v'/>
  <alias>end</alias>
</box>
"""


def test_everything_is_read_and_written_in_the_order_of_the_declarations() -> None:
    box = Box.parse(EVERYTHING)
    assert (box.colour, box.mode, box.is_open, box.lit, box.sealed) == (Colour.RED, "b", True, False, True)
    assert box.name == "a<b&'\""
    assert box.size is not None and (box.size.unit, box.size.value) == ("MiB", 5)
    expected: list[object] = [UsbPlace, PciPlace]
    assert [type(place) for place in box.places] == expected
    assert box.format() == EVERYTHING
    assert not list(box.unknown_paths())


def test_elements_in_any_order_are_written_in_one() -> None:
    box = Box.parse("<box><alias>z</alias><sealed/><name>n</name></box>")
    assert box.format() == "<box mode='a'>\n  <name>n</name>\n  <sealed/>\n  <alias>z</alias>\n</box>\n"


def test_fields_of_a_base_class_come_last() -> None:
    assert [field.name for field in Box.FIELDS][-1] == "alias"


def test_an_empty_element_is_written_open_only_where_declared() -> None:
    assert Box().format() == "<box mode='a'>\n</box>\n"
    assert UsbPlace(port=1).format() == "<place type='usb' port='1'/>\n"


def test_an_element_with_nothing_in_it_is_none_where_declared() -> None:
    assert Box.parse("<box><note/></box>").note is None
    assert "note" not in Box(note=Note()).format()


def test_what_is_not_declared_is_kept_written_again_and_has_a_path() -> None:
    xml = (
        "<box odd='1'><size kind='k'>5</size><new><deep/></new>"
        "<name lang='en'>n<b/></name><sealed>s</sealed>loose</box>"
    )
    box = Box.parse(xml)
    assert list(box.unknown_paths()) == [
        "/box/@odd",
        "/box/new",
        "/box/name/@lang",
        "/box/name/b",
        "/box/sealed/text()",
        "/box/text()",
        "/box/size/@kind",
    ]
    assert Box.parse(box.format()) == box
    assert Box.parse(box.format()).format() == box.format()
    for piece in ("odd='1'", "kind='k'", "<deep/>", "lang='en'", "<b/>", "loose"):
        assert piece in box.format()


def test_a_second_element_where_one_belongs_is_kept_as_unknown() -> None:
    box = Box.parse("<box><name>a</name><name>b</name></box>")
    assert box.name == "a"
    assert box.unknown == [Unknown("name", "<name>b</name>")]


def test_a_copy_shares_nothing() -> None:
    box = Box.parse(EVERYTHING)
    other = box.copy()
    assert other == box
    other.places.clear()
    assert other.size is not None
    other.size.value = 9
    assert box.format() == EVERYTHING


def test_comments_are_left_out_and_text_around_them_is_one() -> None:
    assert Box.parse("<box><!-- c --><name>a<!-- c -->b</name></box>").name == "ab"


def test_what_is_kept_verbatim_keeps_its_comments_cdata_and_namespaces() -> None:
    xml = "<box xmlns:k='urn:k'><foreign><k:a>x <b/> y</k:a><!-- c --><d><![CDATA[<&>]]></d></foreign></box>"
    box = Box.parse(xml)
    assert box.foreign == ('<foreign xmlns:k="urn:k"><k:a>x <b/> y</k:a><!-- c --><d><![CDATA[<&>]]></d></foreign>')
    assert Box.parse(box.format()) == box


@pytest.mark.parametrize(
    ("xml", "path", "reason"),
    [
        ("<box mode='c'/>", "/box/@mode", "Invalid value for attribute 'mode' in element 'box': 'c'. Write a or b"),
        (
            "<box open='on'/>",
            "/box/@open",
            "Invalid value for attribute 'open' in element 'box': 'on'. Write yes or no",
        ),
        ("<box><place/></box>", "/box/place", "Missing required attribute 'type' in element 'place'"),
        ("<box><place type='x'/></box>", "/box/place/@type", "'x'. Write one of pci, usb"),
        ("<box><place type='usb'/></box>", "/box/place", "Missing required attribute 'port' in element 'place'"),
        ("<box><place type='usb' port='-1'/></box>", "/box/place/@port", "Expected non-negative integer value"),
        ("<box><place type='usb' port='1_0'/></box>", "/box/place/@port", "Expected non-negative integer value"),
        ("<box><place type='usb' port='4294967296'/></box>", "/box/place/@port", "The most is 4294967295"),
        ("<box><place type='pci' slot='0x100'/></box>", "/box/place/@slot", "The most is 255"),
        ("<box><size/></box>", "/box/size", "Invalid value '' for element or attribute 'size'"),
        ("<box><size>many</size></box>", "/box/size", "Invalid value 'many' for element or attribute 'size'"),
        ("<box><id>1234</id></box>", "/box/id", "Expected UUID"),
        ("<bag/>", "", "expecting root element of 'box', not 'bag'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(xml: str, path: str, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        Box.parse(xml)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert caught.value.code == ErrorCode.XML_ERROR


@pytest.mark.parametrize(("slot", "value"), [("10", 10), ("0x0A", 10), ("012", 10), (" 10", 10), ("0", 0)])
def test_numbers_are_read_as_c_reads_them(slot: str, value: int) -> None:
    assert PciPlace.parse(f"<place type='pci' slot='{slot}'/>").slot == value


@pytest.mark.parametrize(
    "xml",
    [
        "",
        "<box>",
        "<box><a></b></box>",
        "<box/><box/>",
        "text",
        "<box a='1' a='2'/>",
        "<box>\x00</box>",
        "<b>\ud800</b>",
    ],
)
def test_what_is_no_xml_is_refused_with_its_line(xml: str) -> None:
    with pytest.raises(ModelError, match=r"^\(box_definition\):\d+: ") as caught:
        Box.parse(xml)
    assert caught.value.code == ErrorCode.XML_DETAIL
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize("prolog", ["", "<?xml version='1.0'?>", "  ", "<!-- <a> -->\n<?p?>"])
def test_a_document_type_is_refused_before_anything_is_expanded(prolog: str) -> None:
    entities = "".join(f"<!ENTITY e{i + 1} '{f'&e{i};' * 20}'>" for i in range(20))
    xml = f"{prolog}<!DOCTYPE box [<!ENTITY e0 'aaaaaaaaaa'>{entities}]><box>&e20;</box>"
    if prolog.strip().startswith("<?xml") or "<?xml" not in prolog:
        with pytest.raises(ModelError, match="a document type is not allowed"):
            Box.parse(xml)


def test_an_undeclared_entity_is_refused() -> None:
    with pytest.raises(ModelError, match="Entity 'nosuch' not defined"):
        Box.parse("<box><name>&nosuch;</name></box>")


def test_the_words_doctype_in_a_comment_or_in_text_are_no_document_type() -> None:
    assert Box.parse("<!-- <!DOCTYPE a> --><box><name><![CDATA[<!DOCTYPE a>]]></name></box>").name == "<!DOCTYPE a>"


def test_a_declared_encoding_does_not_matter_for_text() -> None:
    assert Box.parse("<?xml version='1.0' encoding='ISO-8859-1'?><box><name>é</name></box>").name == "é"


def test_deep_nesting_is_refused() -> None:
    xml = "<box>" + "<a>" * 300 + "</a>" * 300 + "</box>"
    with pytest.raises(ModelError):
        Box.parse(xml)


def test_a_document_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ModelError, match="the limit is 4194304"):
        Box.parse("<box>" + " " * (4 << 20) + "</box>")


@pytest.mark.parametrize("name", ["a\x00b", "a\x1bb", "\ufffe"])
def test_characters_that_no_document_can_have_are_refused_when_written(name: str) -> None:
    with pytest.raises(ModelError, match="cannot be in a document"):
        Box(name=name).format()


def test_blanks_in_attributes_survive() -> None:
    box = Box(argument=Argument(value="a\tb\nc\rd"))
    assert Box.parse(box.format()) == box


def test_a_missing_or_misspelt_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="needs port"):
        UsbPlace()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no field prot"):
        UsbPlace(port=1, prot=2)  # type: ignore[call-arg]


class Bare(Element, tag="place", when={"type": None}):
    """A place that says no type."""

    port: int = attr(integer(), default=0)


class Places(Element, tag="places"):
    places: list[Element] = children(Bare, UsbPlace, factory=list)


def test_an_element_may_be_known_by_an_attribute_that_is_not_there() -> None:
    xml = "<places>\n  <place type='usb' port='1'/>\n  <place port='2'/>\n</places>\n"
    places = Places.parse(xml)
    expected: list[object] = [UsbPlace, Bare]
    assert [type(place) for place in places.places] == expected
    assert places.format() == xml
    with pytest.raises(ModelError, match="Write one of usb"):
        Places.parse("<places><place type='pci'/></places>")
