"""What a machine's control group is told, where the host's own cannot show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.cgroup.group import Group, Place
from hostel.drivers.qemu.tuning.groups import name_traffic
from hostel.errors import ErrorCode, VirtError


def test_traffic_of_fibre_channel_is_named_by_the_group(tmp_path: Path) -> None:
    (tmp_path / "machine" / "w").mkdir(parents=True)
    group, store = Group("/machine/w", {"memory": Place(tmp_path, True)}), tmp_path / "appid_store"
    with pytest.raises(VirtError, match="Unable to write to") as caught:
        name_traffic(group, "web 1", tmp_path / "no adapter" / "appid_store")
    assert caught.value.code is ErrorCode.SYSTEM_ERROR
    name_traffic(group, "web 1", store)
    assert store.read_text() == f"{(tmp_path / 'machine' / 'w').stat().st_ino:X}:web 1"
