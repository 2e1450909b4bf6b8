from __future__ import annotations

import pytest

from hostel.export.vhost_user_blk.queue import _portion


@pytest.mark.parametrize(
    ("waiting", "taken"),
    [(0, 8), (1, 8), (8, 8), (16, 8), (17, 16), (32, 16), (33, 32), (64, 32), (256, 32), (65535, 32)],
)
def test_a_guest_hears_of_the_first_half_while_the_second_is_answered(waiting: int, taken: int) -> None:
    assert _portion(waiting) == taken
