"""Rules of profiles: how paths are written, what adds up, and what a machine is given while something is under way."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostel.drivers.qemu.confinement.apparmor.profile import Run, rules
from hostel.drivers.qemu.confinement.apparmor.rules import Restricted, Rules
from hostel.drivers.qemu.status import BlockJob, Plug, Status
from support import refused
from support.domain import defined

RUN = Run(Path("/nosuch/run"), Path("/nosuch/run/qemu"), Path("/nosuch/log"))
_BELOW = (
    "<backingStore type='file' index='2'><format type='qcow2'/><source file='/mid'/>"
    "<backingStore type='file' index='3'><format type='raw'/><source file='/low'/><backingStore/></backingStore>"
    "</backingStore>"
)
_DISK = (
    "<disk type='file'><driver name='qemu' type='qcow2'/><source file='/top' index='1'/>{below}"
    "<target dev='vda' bus='virtio'/></disk>"
)


def lines(*files: tuple[str, str]) -> list[str]:
    found = Rules()
    for path, permissions in files:
        found.file(path, permissions)
    return [line.strip() for line in found.lines() if "#" not in line]


def test_what_is_only_read_is_denied_for_writing_and_what_is_written_anywhere_is_not() -> None:
    assert lines(("/a", "rk")) == ['"/a" rk,', 'deny "/a" w,']
    assert lines(("/a", "rk"), ("/a", "rwk")) == ['"/a" rwk,']


def test_letters_that_mean_something_to_apparmor_are_the_path_s_own() -> None:
    assert lines(("/a[1]{b}*?^", "rw")) == [r'"/a\[1\]\{b\}\*\?\^" rw,']
    for wrong in ('/a"b', "/a\nb"):
        with pytest.raises(Restricted, match="characters that a profile cannot have"):
            lines((wrong, "rw"))


def test_what_is_no_path_of_the_host_needs_no_rule() -> None:
    assert lines(("relative", "rw"), ("", "rw")) == []


def test_links_are_followed_as_far_as_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert lines((f"{tmp_path}/link/new/file", "rw")) == [f'"{tmp_path}/there/new/file" rw,']
    (tmp_path / "out").symlink_to("/etc")
    with pytest.raises(Restricted):
        lines((f"{tmp_path}/out/shadow", "r"))


def permissions(status: Status, *files: str) -> dict[str, str]:
    found = [line.strip() for line in rules(status, RUN, files) if not line.strip().startswith(("#", "deny"))]
    return {line.split('"')[1]: line.rsplit(" ", 1)[1].rstrip(",") for line in found}


def test_what_is_under_way_is_in_the_profile() -> None:
    domain = defined(refused.document(_DISK.format(below="")))
    coming = domain.devices.disks[0].copy()
    assert coming.source is not None
    coming.source.file = "/new"
    found = permissions(Status(domain, 1, 0, 0, "", 0, plugs=(Plug(way="in", alias="x", disk=coming),)), "/given")
    assert {path: found[path] for path in ("/top", "/new", "/given")} == dict.fromkeys(
        ("/top", "/new", "/given"), "rwk"
    )
    assert found["/nosuch/run/qemu/{,**}"] == "rwk" and found["/nosuch/log"] == "w"


@pytest.mark.parametrize(
    ("job", "written"),
    [
        (None, {"/top"}),
        (BlockJob(name="j", kind="commit", disk="vda", top=2, base=3), {"/top", "/low"}),
        (BlockJob(name="j", kind="active-commit", disk="vda", base=2), {"/top", "/mid"}),
        (BlockJob(name="j", kind="commit", disk="vda", top=2, base=3, ended="completed"), {"/top"}),
        (BlockJob(name="j", kind="pull", disk="vda", base=3), {"/top"}),
    ],
)
def test_an_image_below_is_written_while_something_is_merged_into_it(job: BlockJob | None, written: set[str]) -> None:
    domain = defined(refused.document(_DISK.format(below=_BELOW)))
    source, below = domain.devices.disks[0].source, domain.devices.disks[0].backing_store
    assert source is not None and below is not None and below.backing_store is not None
    source.index, below.index, below.backing_store.index = 1, 2, 3
    found = permissions(Status(domain, 1, 0, 0, "", 0, jobs=(job,) if job is not None else ()))
    assert {path for path in ("/top", "/mid", "/low") if "w" in found[path]} == written
