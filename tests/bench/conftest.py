"""What the benchmarks beside ``qemu-img`` share: a table that is printed in the end, and a folder that is fast."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import free_memory
from bench.rivals import NEED, Bench, fast_folder


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """The rows of one module; printed, and saved where that is wanted."""
    collected = Bench()
    yield collected
    print("\n" + collected.report())
    collected.save()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder, in memory where there is room."""
    place = fast_folder(tmp_path_factory.mktemp("bench"))
    with free_memory.kept(place, NEED), tempfile.TemporaryDirectory(dir=place) as name:
        yield Path(name)
