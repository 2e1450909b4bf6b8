"""What people write on a domain."""

from __future__ import annotations

import pytest

from hostel.drivers.metadata import change, look
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.domain import Domain
from hostel.model.domain.metadata import MetadataType, read_metadata, write_metadata

ONE, TWO = "http://one.example", "http://two.example"
ELEMENT, TITLE, DESCRIPTION = MetadataType.ELEMENT, MetadataType.TITLE, MetadataType.DESCRIPTION


@pytest.fixture
def domain() -> Domain:
    return Domain.parse("<domain type='test'><name>d</name></domain>", "domain")


def test_an_element_is_of_the_namespace_with_the_prefix_and_comes_back_without(domain: Domain) -> None:
    text = "<a b='1'><!-- said --><c>1 &amp; 2</c></a>"
    write_metadata(domain, ELEMENT, text, "one", ONE)
    assert domain.metadata is not None
    assert f'<one:a xmlns:one="{ONE}" b="1">' in domain.metadata
    assert "<one:c>1 &amp; 2</one:c>" in domain.metadata
    read = read_metadata(domain, ELEMENT, ONE)
    assert read is not None
    assert read.startswith('<a b="1">')
    assert "<c>1 &amp; 2</c>" in read
    assert "one" not in read


def test_elements_of_other_namespaces_stay(domain: Domain) -> None:
    write_metadata(domain, ELEMENT, "<a><other:b xmlns:other='http://three.example'/></a>", "one", ONE)
    write_metadata(domain, ELEMENT, "<z/>", "two", TWO)
    write_metadata(domain, ELEMENT, "<new/>", "uno", ONE)
    assert domain.metadata == (f'<metadata><two:z xmlns:two="{TWO}"/><uno:new xmlns:uno="{ONE}"/></metadata>')
    write_metadata(domain, ELEMENT, None, None, ONE)
    assert read_metadata(domain, ELEMENT, ONE) is None
    assert read_metadata(domain, ELEMENT, TWO) == "<z/>"


def test_the_document_with_an_element_is_read_again_as_it_is(domain: Domain) -> None:
    write_metadata(domain, ELEMENT, "<a xmlns='http://four.example'><b/></a>", "one", ONE)
    text = domain.format()
    assert Domain.parse(text, "domain").format() == text


def test_removing_what_is_not_there_makes_nothing(domain: Domain) -> None:
    write_metadata(domain, ELEMENT, None, None, ONE)
    assert domain.metadata is None


def test_an_empty_title_or_description_is_none(domain: Domain) -> None:
    for kind in (TITLE, DESCRIPTION):
        change(domain, kind, "text", None, None)
        assert look(domain, kind, None) == "text"
        change(domain, kind, "", None, None)
        with pytest.raises(VirtError, match="metadata not found: Requested metadata element is not present") as caught:
            look(domain, kind, None)
        assert caught.value.code is ErrorCode.NO_DOMAIN_METADATA


@pytest.mark.parametrize(
    ("kind", "text", "key", "uri", "said"),
    [
        (9, "x", None, None, "unknown metadata type '9'"),
        (TITLE, "a\nb", None, None, "metadata title can't contain newlines"),
        (TITLE, "a", None, ONE, "uri in virDomainSetMetadata must be NULL"),
        (DESCRIPTION, "a", "k", None, "key in virDomainSetMetadata must be NULL"),
        (ELEMENT, "<a/>", "k", None, "uri in virDomainSetMetadata must not be NULL"),
        (ELEMENT, "<a/>", None, ONE, "key in virDomainSetMetadata must not be NULL"),
        (ELEMENT, "<a/>", "1 2", ONE, "failed to validate prefix for a new XML namespace"),
        (ELEMENT, "<a>", "k", ONE, "metadata_xml"),
    ],
)
def test_what_breaks_a_rule_is_refused_and_changes_nothing(
    domain: Domain, kind: int, text: str, key: str | None, uri: str | None, said: str
) -> None:
    change(domain, ELEMENT, "<kept/>", "one", ONE)
    before = domain.format()
    with pytest.raises(VirtError, match=said):
        change(domain, kind, text, key, uri)
    assert domain.format() == before
