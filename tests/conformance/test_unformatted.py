"""A protocol's name, or a filter's, in a format's place: what real ``qemu-img`` does with it, ours does."""

from __future__ import annotations

import pytest

from support.twins import Twins

pytestmark = pytest.mark.requires_tool("qemu-img")

FILES = ("file", "host_device", "host_cdrom")
# None of them needs a server: what is wrong with a plain name they tell before.
DRIVERS = (
    *FILES,
    "nbd",
    "ssh",
    "nfs",
    "null-co",
    "vvfat",
    "blkdebug",
    "quorum",
    "throttle",
    "nonsense",
)
URLS = ("http", "ftp")
# What ours refuses in other words; QEMU's own library reports a failure of its own with them.
OTHER_WORDS = frozenset({("info", "http"), ("info", "ftp"), ("convert from", "http"), ("convert from", "ftp")})
COMMANDS = {
    "help": "create -f {} -o help",
    "help for a name": "create -f {} -o help new",
    "amend help": "amend -f {} -o help",
    "measure": "measure -O {} --size 1M",
    "create": "create -f {} new 1M",
    "create without a size": "create -f {} new",
    "convert to": "convert -f raw -O {} disk new",
    "convert into": "convert -n -f raw -O {} disk there",
    "convert from": "convert -f {} -O raw disk new",
    "dd": "dd -O {} if=disk of=new bs=1M",
    "info": "info -f {} disk",
}


@pytest.mark.parametrize("driver", [*DRIVERS, *URLS])
@pytest.mark.parametrize("name", COMMANDS)
def test_drivers_in_a_formats_place(twins: Twins, name: str, driver: str) -> None:
    twins.write("disk", b"disk" * 256 * 1024)
    twins.truncate("there", 1 << 20)
    command = COMMANDS[name].format(driver)
    if (name, driver) in OTHER_WORDS:
        ours, theirs = twins.run_ours(command.split()), twins.run_real(command.split())
        assert (ours.code, ours.out) == (theirs.code, theirs.out) == (1, "")
        assert theirs.err.endswith(ours.err)
    else:
        twins.same(command)
    for folder in (twins.real, twins.ours):
        assert (folder / "disk").read_bytes() == b"disk" * 256 * 1024
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in (twins.real, twins.ours)]
    assert contents[0] == contents[1]
