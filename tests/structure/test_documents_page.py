"""The page about documents has a row for every element that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.codec.xmlfield import Attribute
from hostel.model.domain.domain import Devices, Domain

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility" / "documents.md").read_text()
ROWS = PAGE.partition("| element | acted on |")[2].partition("\n\n")[0]
ELEMENTS = sorted({field.tag for cls in (Domain, Devices) for field in cls.FIELDS if not isinstance(field, Attribute)})


@pytest.mark.parametrize("tag", [tag for tag in ELEMENTS if tag != "devices"])
def test_element_has_its_place_on_the_page(tag: str) -> None:
    names = (f"`{tag}`", f"`qemu:{tag}`", f"`<{tag}>`")
    assert any(name in ROWS for name in names), f"docs/compatibility/documents.md says nothing of <{tag}>"
