"""Counting what a module of tests has tried, and saying it when the module is done."""

from __future__ import annotations

import collections
from collections.abc import Iterator

import pytest


def tally(request: pytest.FixtureRequest) -> Iterator[collections.Counter[str]]:
    """A counter for a module; what it counted is printed at the end, captured output or not."""
    counter: collections.Counter[str] = collections.Counter()
    yield counter
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + ", ".join(f"{count:,} {what}" for what, count in counter.items()))


# A module that imports it has the fixture.
tried = pytest.fixture(scope="module")(tally)
