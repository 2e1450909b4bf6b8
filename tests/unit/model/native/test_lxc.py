"""Containers' configuration as documents, in the words of LXC 2 and of LXC 3."""

from __future__ import annotations

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.hostdev import NetHostdev
from hostel.model.domain.domain import Domain
from hostel.model.native.lxc.reading import read_lxc

HEAD = "lxc.utsname = box\nlxc.rootfs = /srv/box\n"
OLD = (
    HEAD
    + """
lxc.network.type = veth
lxc.network.link = br0
lxc.network.flags = up
lxc.network.ipv4 = 192.0.2.7/24
lxc.network.ipv4.gateway = 192.0.2.1
lxc.network.type = macvlan
lxc.network.link = eth0
lxc.network.macvlan.mode = bridge
lxc.tty = 2
lxc.id_map = u 0 100000 65536
"""
)
NEW = """
lxc.uts.name = box
lxc.rootfs.path = /srv/box
lxc.net.5.type = veth
lxc.net.7.type = macvlan
lxc.net.5.link = br0
lxc.net.5.flags = up
lxc.net.5.ipv4.address = 192.0.2.7/24
lxc.net.5.ipv4.gateway = 192.0.2.1
lxc.net.7.link = eth0
lxc.net.7.macvlan.mode = bridge
lxc.tty.max = 2
lxc.idmap = u 0 100000 65536
"""


def read(text: str) -> Domain:
    domain = read_lxc(text)
    domain.uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
    return domain


def test_both_versions_say_the_same() -> None:
    assert read(OLD).format() == read(NEW).format()


def test_container_becomes_a_document() -> None:
    domain = read(NEW)
    bridged, direct = domain.devices.interfaces
    assert bridged.source is not None and bridged.source.bridge == "br0" and bridged.link_state == "up"
    assert (bridged.ips[0].address, bridged.ips[0].prefix) == ("192.0.2.7", 24)
    assert bridged.routes[0].gateway == "192.0.2.1"
    assert direct.source is not None and (direct.source.dev, direct.source.mode) == ("eth0", "bridge")
    assert len(domain.devices.consoles) == 2
    assert Domain.parse(domain.format()).format() == domain.format()


def test_directory_may_be_named_as_one() -> None:
    assert "<source dir='/srv/box'/>" in read(NEW.replace("/srv/box", "dir:/srv/box")).format()


def test_mapping_is_read_as_lxc_means_it() -> None:
    idmap = read(NEW).idmap
    assert idmap is not None
    assert (idmap.uids[0].start, idmap.uids[0].target, idmap.uids[0].count) == (0, 100000, 65536)


def test_container_without_network_has_a_network_of_its_own() -> None:
    assert "<privnet/>" in read(HEAD).format()
    assert "<privnet/>" not in read(HEAD + "lxc.network.type = none\n").format()


def test_interfaces_of_the_host_are_given() -> None:
    text = "lxc.network.type = vlan\nlxc.network.link = eth1\nlxc.network.vlan.id = 12\n"
    hostdev = read(HEAD + text).devices.hostdevs[0]
    assert isinstance(hostdev, NetHostdev) and hostdev.source.interface == "eth1.12"


def test_mounts_but_those_that_are_there_anyway() -> None:
    text = (
        "lxc.mount.entry = proc proc proc nodev 0 0\nlxc.mount.entry = tmpfs run tmpfs rw,size=8m 0 0\n"
        "lxc.mount.entry = /srv/data data none bind,ro 0 0\nlxc.mount.entry = /dev/vg/lv /lv ext4 rw 0 0\n"
    )
    folders = read(HEAD + text).devices.filesystems
    assert [(folder.type, folder.target, folder.readonly) for folder in folders] == [
        ("mount", "/", False), ("ram", "/run", False), ("mount", "/data", True), ("block", "/lv", False)
    ]  # fmt: skip
    assert folders[1].source is not None and (folders[1].source.usage, folders[1].source.units) == (8192, "KiB")


def test_limits_of_control_groups() -> None:
    prefix = "lxc.cgroup."
    text = "".join(
        f"{prefix}{line}\n"
        for line in (
            "memory.limit_in_bytes = 1G", "memory.memsw.limit_in_bytes = 2G", "cpu.shares = 512",
            "cpuset.cpus = 0-2,^1", "blkio.weight = 500", "blkio.throttle.read_bps_device = 8:0 1000",
        )
    )  # fmt: skip
    domain = read(HEAD + text)
    assert domain.memory is not None and domain.memory.value == 1024 * 1024
    assert domain.memtune is not None and domain.memtune.swap_hard_limit is not None
    assert domain.vcpu is not None and domain.vcpu.cpuset == "0,2"
    assert domain.blkiotune is not None and domain.blkiotune.devices[0].read_bytes_sec == 1000


@pytest.mark.parametrize(
    ("text", "path", "code"),
    [("", "lxc.utsname", ErrorCode.INTERNAL_ERROR),
     ("lxc.utsname = box\n", "lxc.rootfs", ErrorCode.INTERNAL_ERROR),
     (HEAD.replace("/srv", "overlay:/srv"), "lxc.rootfs.path", ErrorCode.CONFIG_UNSUPPORTED),
     (HEAD + "lxc.mount = /etc/fstab\n", "lxc.mount", ErrorCode.ARGUMENT_UNSUPPORTED),
     (HEAD + "lxc.mount.entry = a b\n", "lxc.mount.entry", ErrorCode.INTERNAL_ERROR),
     (HEAD + "lxc.mount.entry = t t tmpfs size=5% 0 0\n", "lxc.mount.entry", ErrorCode.INTERNAL_ERROR),
     (HEAD + "lxc.tty = 100000000\n", "lxc.tty", ErrorCode.INTERNAL_ERROR),
     (HEAD + "lxc.network.link = x\n", "lxc.network.link", ErrorCode.INTERNAL_ERROR),
     (HEAD + "lxc.net.x.link = x\n", "lxc.net.x.link", ErrorCode.INTERNAL_ERROR),
     (HEAD + "lxc.net.0.ipv4.address = 1.2.3\n", "lxc.net.0.ipv4.address", ErrorCode.INVALID_ARG),
     (HEAD + "lxc.net.0.ipv6.address = ::1/129\n", "lxc.net.0.ipv6.address", ErrorCode.INVALID_ARG),
     (HEAD + "lxc.id_map = u 1 2\n", "lxc.id_map", ErrorCode.INTERNAL_ERROR),
     (HEAD + "lxc.cgroup.cpu.shares = many\n", "lxc.cgroup.cpu.shares", ErrorCode.INTERNAL_ERROR),
     (HEAD + "lxc.cgroup.cpuset.cpus = 3-1\n", "lxc.cgroup.cpuset.cpus", ErrorCode.INTERNAL_ERROR)],
)  # fmt: skip
def test_refusal_names_the_setting(text: str, path: str, code: ErrorCode) -> None:
    with pytest.raises(ModelError) as refusal:
        read_lxc(text)
    assert (refusal.value.path, refusal.value.code) == (path, code)
