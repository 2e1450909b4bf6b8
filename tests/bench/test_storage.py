"""A pool of 1,000 volumes: refreshing and describing it, beside a real libvirtd."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hostel
from hostel.drivers.store import Directories
from hostel.units import GiB
from support import libvirtd
from support.qcow2 import create

VOLUMES = 1000
ROUNDS = 5


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory of raw and qcow2 images, which the daemon's user may read."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Path(name)
        image = create(GiB)
        for number in range(VOLUMES):
            path = place / f"v{number}"
            if number % 2:
                path.write_bytes(image)
            else:
                path.touch()
                os.truncate(path, GiB)
            path.chmod(0o644)
        place.chmod(0o755)
        yield place


def best(action: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.requires_tool("virsh")
@pytest.mark.requires_tool("libvirtd")
def test_pool_of_a_thousand_volumes(place: Path, tmp_path: Path) -> None:
    xml = f"<pool type='dir'><name>bench</name><target><path>{place}</path></target></pool>"
    with hostel.open("qemu:///session", Directories.under(tmp_path)) as connection:
        pool = connection.create_pool(xml)
        refresh = best(pool.refresh)
        listing = best(pool.volumes)
        infos = best(lambda: [volume.info() for volume in pool.volumes()])
        assert len(pool.volumes()) == VOLUMES
    with libvirtd.running() as daemon:
        uri = daemon.uri.replace("qemu+unix", "storage+unix")

        def virsh(*words: str) -> str:
            argv = ["virsh", "-q", "-c", uri, *words]
            return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout

        virsh("pool-create-as", "bench", "dir", "--target", str(place))
        empty = best(lambda: virsh("uri"))
        their_refresh = best(lambda: virsh("pool-refresh", "bench")) - empty
        their_infos = best(lambda: virsh("vol-list", "bench", "--details")) - empty
        assert len(virsh("vol-list", "bench").splitlines()) == VOLUMES
    print(f"\n{VOLUMES} volumes, seconds: hostel in process | libvirtd, less a call that does nothing")
    print(f"refresh          {refresh:6.3f} | {their_refresh:6.3f}")
    print(f"list             {listing:6.3f}")
    print(f"list with infos  {infos:6.3f} | {their_infos:6.3f}")
    assert refresh < 1
    assert infos < 5
