"""When a server looks for the next request before it sleeps: only where that was found to be quicker."""

from __future__ import annotations

import random

import pytest

from hostel.export.lookout import Lookout

US = 1e-6


class Host:
    """A host on which a round takes as long as it is said, looking and sleeping."""

    def __init__(self, *, looking: float, sleeping: float, processors: int = 2, most: int = 1) -> None:
        self.looking, self.sleeping, self.most = looking, sleeping, most
        self.now = 0.0
        self.rng = random.Random(4)
        self.lookout = Lookout(lambda: self.now, processors)

    def run(self, rounds: int) -> float:
        """The share of rounds in which it looked."""
        looked = 0
        for _ in range(rounds):
            looked += self.lookout.looks
            requests = self.rng.randint(1, self.most)
            self.now += (self.looking if self.lookout.looks else self.sleeping) * requests
            if not self.rng.randrange(20):
                self.now += 4000 * US  # somebody else had the processor
            self.lookout.ended(requests)
        return looked / rounds


@pytest.mark.parametrize("most", [1, 16])
def test_looks_where_that_is_quicker(most: int) -> None:
    host = Host(looking=20 * US, sleeping=30 * US, most=most)
    host.run(2000)
    assert host.run(100_000) > 0.98


@pytest.mark.parametrize("looking", [29, 40, 200])
def test_sleeps_where_looking_gains_too_little(looking: int) -> None:
    host = Host(looking=looking * US, sleeping=30 * US)
    host.run(2000)
    assert host.run(100_000) < 0.02


def test_finds_out_when_that_changes() -> None:
    host = Host(looking=20 * US, sleeping=30 * US)
    host.run(100_000)
    host.looking, host.sleeping = 40 * US, 15 * US
    host.run(20_000)
    assert host.run(10_000) < 0.1
    host.looking = 8 * US
    host.run(20_000)
    assert host.run(10_000) > 0.9


def test_never_looks_for_a_slow_client() -> None:
    assert Host(looking=900 * US, sleeping=1000 * US).run(50_000) == 0


def test_never_looks_with_one_processor() -> None:
    assert Host(looking=10 * US, sleeping=100 * US, processors=1).run(50_000) == 0
