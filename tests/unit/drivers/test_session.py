"""Opening the user's session: what it starts, and what it loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import hostel
from hostel.drivers import boot
from hostel.drivers.session import open_session
from hostel.drivers.store import Directories


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories.under(tmp_path / "home")


def is_active(directories: Directories) -> bool:
    with hostel.open("qemu:///session", directories) as connection:
        return connection.pool("p").is_active


@pytest.fixture
def marked(directories: Directories, tmp_path: Path) -> None:
    """A pool that starts by itself, in a session that was opened since the host started."""
    with hostel.open("qemu:///session", directories) as connection:
        pool = connection.define_pool(
            f"<pool type='dir'><name>p</name><target><path>{tmp_path}/p</path></target></pool>"
        )
        pool.build()
        pool.autostart = True


@pytest.mark.usefixtures("marked")
def test_the_first_opening_starts_what_is_marked_and_later_ones_leave_it(directories: Directories) -> None:
    assert not is_active(directories)
    shutil.rmtree(directories.state)  # as a host that starts with an empty runtime directory
    assert is_active(directories)
    with hostel.open("qemu:///session", directories) as connection:
        connection.pool("p").stop()
    assert not is_active(directories)


@pytest.mark.usefixtures("marked")
def test_what_does_not_start_by_itself_is_told(directories: Directories, tmp_path: Path) -> None:
    (tmp_path / "p").rmdir()
    machines = directories.config / "qemu"
    (machines / "autostart").mkdir(parents=True)
    for name in ("b", "c"):
        (machines / f"{name}.xml").write_text("<domain")
        (machines / "autostart" / name).touch()
    shutil.rmtree(directories.state)
    told: list[tuple[str, str]] = []
    opened = open_session(urlsplit("qemu:///session"), directories, missed=lambda *said: told.append(said))
    assert opened is not None
    opened.close()
    assert [what for what, _ in told] == ["storage pool 'p'", "domain 'b'", "domain 'c'"]
    assert f"'{tmp_path}/p'" in told[0][1] and "is broken" in told[1][1]
    assert "not started by itself: definition file" in (directories.cache / "qemu/log/b.log").read_text()


@pytest.mark.usefixtures("marked")
def test_after_a_reboot_only_what_is_marked_runs(
    directories: Directories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hostel.open("qemu:///session", directories) as connection:
        xml = f"<pool type='dir'><name>transient</name><target><path>{tmp_path}/t</path></target></pool>"
        connection.create_pool(xml, build=True)
    identity = tmp_path / "boot_id"
    identity.write_text("another")
    monkeypatch.setattr(boot, "_BOOT_ID", identity)
    with hostel.open("qemu:///session", directories) as connection:
        assert [(pool.name, pool.is_active) for pool in connection.pools()] == [("p", True)]
