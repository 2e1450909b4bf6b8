"""Every registered format and filter has its module, its tests and its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.block import registry
from hostel.block.driver import FilterDriver, FormatDriver
from hostel.errors import UnknownFormat

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", registry.FORMATS)
def test_format_row_names_a_driver_of_that_name(name: str) -> None:
    driver = registry.format_driver(name)
    assert issubclass(driver, FormatDriver)
    assert driver.name == name


@pytest.mark.parametrize("name", registry.FORMATS)
def test_format_has_unit_and_conformance_tests_and_a_page(name: str) -> None:
    def mentions(folder: str) -> bool:
        paths = [*(ROOT / "tests" / folder).rglob("test_*.py")]
        return any(f'"{name}"' in path.read_text() or f"_{name}" in path.name for path in paths)

    assert mentions("unit"), f"no unit test mentions {name}"
    assert mentions("conformance"), f"no conformance test mentions {name}"
    assert (ROOT / "docs" / "formats" / f"{name}.md").is_file()


def test_raw_is_probed_last() -> None:
    assert list(registry.FORMATS)[-1] == "raw"


def test_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(UnknownFormat, match="Unknown driver 'nosuch'"):
        registry.format_driver("nosuch")


@pytest.mark.parametrize("name", registry.FILTERS)
def test_filter_has_a_driver_unit_and_conformance_tests_and_a_section(name: str) -> None:
    driver = registry.filter_driver(name)
    assert issubclass(driver, FilterDriver)
    assert driver.name == name
    for folder in ("unit", "conformance"):
        texts = [path.read_text() for path in (ROOT / "tests" / folder).rglob("test_*.py")]
        assert any(f'"{name}' in text or f"driver={name}" in text for text in texts), f"no {folder} test opens {name}"
    assert f"\n## {name}\n" in (ROOT / "docs" / "formats" / "filters.md").read_text()
