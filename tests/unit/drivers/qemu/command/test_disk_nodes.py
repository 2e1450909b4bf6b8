"""Disks on a command line: where their bytes are, their formats, and what opens them."""

from __future__ import annotations

from typing import Any

import pytest

from hostel.drivers.qemu import document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command.machine import devices
from hostel.errors import VirtError
from support.arguments import CONTEXT, said, spec, specs, text
from support.domain import QEMU

UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809"


def disk(
    source: str, *, kind: str = "network", driver: str = "type='raw'", more: str = "", device: str = "disk"
) -> str:
    target = "<target dev='hdc' bus='ide'/>" if device == "cdrom" else "<target dev='vda' bus='virtio'/>"
    return f"<disk type='{kind}' device='{device}'><driver name='qemu' {driver}/>{source}{target}{more}</disk>"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("<source protocol='nbd' name='e'><host name='h'/></source>",
         {"driver": "nbd", "server": {"type": "inet", "host": "h", "port": "10809"}, "export": "e"}),
        ("<source protocol='nbd'><host transport='unix' socket='/s'/></source>",
         {"driver": "nbd", "server": {"type": "unix", "path": "/s"}}),
        ("<source protocol='https' name='a/b' query='q=1'><host name='::1' port='8443'/><ssl verify='no'/></source>",
         {"driver": "https", "url": "https://[::1]:8443/a/b?q=1", "sslverify": False}),
        ("<source protocol='iscsi' name='iqn.2020-01.org:t/3'><host name='h'/><initiator><iqn name='i'/></initiator>"
         "</source>",
         {"driver": "iscsi", "portal": "h:3260", "target": "iqn.2020-01.org:t", "lun": 3, "transport": "tcp",
          "initiator-name": "i"}),
        ("<source protocol='rbd' name='p/i/j'><host name='m' port='6789'/><snapshot name='s'/><config file='/c'/>"
         "</source>",
         {"driver": "rbd", "pool": "p", "image": "i/j", "snapshot": "s", "conf": "/c",
          "server": [{"host": "m", "port": "6789"}]}),
        ("<source protocol='gluster' name='v/d/i'><host name='h'/><host transport='unix' socket='/s'/></source>",
         {"driver": "gluster", "volume": "v", "path": "d/i", "debug": 4,
          "server": [{"type": "inet", "host": "h", "port": "24007"}, {"type": "unix", "path": "/s"}]}),
        ("<source protocol='nfs' name='/e'><host name='h'/><identity user='+12' group='+34'/></source>",
         {"driver": "nfs", "path": "/e", "server": {"host": "h", "type": "inet"}, "user": 12, "group": 34}),
        ("<source protocol='ssh' name='/i'><host name='h'/></source>",
         {"driver": "ssh", "path": "/i", "server": {"host": "h", "port": "22"}}),
    ],
)  # fmt: skip
def test_a_server_is_named_in_the_words_of_its_driver(source: str, told: dict[str, Any]) -> None:
    node = spec(said(disk(source)), "-blockdev", **{"node-name": "libvirt-1-storage"})
    rest = {"node-name": "libvirt-1-storage", "auto-read-only": True, "discard": "unmap"}
    assert node == {**told, **rest}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("<source protocol='nbd' name='e'/>", "no <host name"),
        ("<source protocol='rbd' name='image'><host name='h'/></source>", "POOL/IMAGE"),
        ("<source protocol='gluster' name='volume'><host name='h'/></source>", "VOLUME/PATH"),
        ("<source protocol='iscsi' name='t/x1'><host name='h'/></source>", "'x1' after the target's name"),
        ("<source protocol='nbd' tls='yes'><host name='h'/></source>", "no certificates for nbd"),
        ("<source protocol='nfs' name='/e'><host name='h'/><identity user='no-such-user'/></source>", "no-such-user"),
    ],
)
def test_what_no_driver_of_qemu_can_be_told_is_refused(source: str, why: str) -> None:
    with pytest.raises(VirtError, match=why):
        said(disk(source))


def test_a_password_is_a_file_and_not_on_the_command_line() -> None:
    auth = f"<auth username='u'><secret type='iscsi' uuid='{UUID}'/></auth>"
    argv = said(disk(f"<source protocol='iscsi' name='t/0'><host name='h'/>{auth}</source>"))
    name = "libvirt-1-storage-auth-secret0"
    secret = spec(argv, "-object", id=name)
    assert secret == {"qom-type": "secret", "id": name, "format": "raw", "file": f"/run/{name}.secret"}
    node = spec(argv, "-blockdev", driver="iscsi")
    assert (node["user"], node["password-secret"]) == ("u", name)


def test_cookies_and_certificates_are_objects() -> None:
    cookies = "<cookies><cookie name='a'>b</cookie></cookies>"
    argv = said(disk(f"<source protocol='http' name='i'><host name='h'/>{cookies}</source>"))
    assert spec(argv, "-blockdev", driver="http")["cookie-secret"] == "libvirt-1-storage-httpcookie-secret0"
    assert "a=b" not in " ".join(argv)
    source = "<source protocol='nbd' tls='yes' tlsHostname='n'><host name='h'/></source>"
    argv = said(disk(source), context=CONTEXT._replace(certificates={"nbd": "/pki"}))
    node = spec(argv, "-blockdev", driver="nbd")
    assert (node["tls-creds"], node["tls-hostname"]) == ("objlibvirt-1-storage_tls0", "n")
    assert spec(argv, "-object", id=node["tls-creds"])["dir"] == "/pki"


@pytest.mark.parametrize(
    ("format", "told"),
    [
        ("raw", {"driver": "luks", "key-secret": "libvirt-1-format-encryption-secret0"}),
        ("qcow2", {"driver": "qcow2",
                   "encrypt": {"format": "luks", "key-secret": "libvirt-1-format-encryption-secret0"}}),
    ],
)  # fmt: skip
def test_an_encrypted_image_is_opened_by_its_secret(format: str, told: dict[str, Any]) -> None:
    encryption = f"<encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption>"
    argv = said(disk(f"<source file='/i'>{encryption}</source>", kind="file", driver=f"type='{format}'"))
    node = spec(argv, "-blockdev", **{"node-name": "libvirt-1-format"})
    assert told.items() <= node.items()
    assert spec(argv, "-object", id="libvirt-1-format-encryption-secret0")["file"].startswith("/run/")


def test_a_part_of_a_storage_is_a_window_of_raw_or_under_another_format() -> None:
    source = "<source file='/i'><slices><slice type='storage' offset='512' size='1024'/></slices></source>"
    raw = specs(said(disk(source, kind="file")), "-blockdev")
    assert [(node.get("offset"), node.get("size")) for node in raw] == [(None, None), (512, 1024)]
    below, window, image = specs(said(disk(source, kind="file", driver="type='qcow2'")), "-blockdev")
    assert (window["driver"], window["offset"], window["size"]) == ("raw", 512, 1024)
    assert (window["file"], image["file"]) == (below["node-name"], window["node-name"])


def test_a_part_of_what_is_on_a_server_is_a_window_too() -> None:
    window = "<slices><slice type='storage' offset='512' size='1024'/></slices>"
    source = f"<source protocol='https' name='i'><host name='h'/>{window}</source>"
    below, image = specs(said(disk(source)), "-blockdev")
    assert (below["driver"], image["driver"], image["offset"], image["size"]) == ("https", "raw", 512, 1024)


def test_copy_on_read_is_a_filter_that_the_device_is_on() -> None:
    argv = said(disk("<source file='/i'/>", kind="file", driver="type='qcow2' copy_on_read='on'"))
    node = spec(argv, "-blockdev", driver="copy-on-read")
    assert node["file"] == "libvirt-1-format"
    assert spec(argv, "-device", id="virtio-disk0")["drive"] == node["node-name"]


@pytest.mark.parametrize(
    ("driver", "discard", "zeroes"),
    [
        ("discard='unmap' detect_zeroes='unmap'", "unmap", "unmap"),
        ("discard='ignore' detect_zeroes='unmap'", "ignore", "on"),
        ("detect_zeroes='on'", None, "on"),
    ],
)
def test_zeroes_are_unmapped_only_where_discards_are(driver: str, discard: str | None, zeroes: str) -> None:
    argv = said(disk("<source file='/i'/>", kind="file", driver=f"type='raw' {driver}"))
    node = spec(argv, "-blockdev", **{"node-name": "libvirt-1-format"})
    assert (node.get("discard"), node["detect-zeroes"]) == (discard, zeroes)


def test_error_policies_are_in_the_words_of_qemu() -> None:
    argv = said(disk("<source file='/i'/>", kind="file", driver="type='raw' error_policy='enospace'"))
    found = spec(argv, "-device", id="virtio-disk0")
    assert (found["werror"], found.get("rerror")) == ("enospc", None)


def test_a_shared_disk_is_not_cached() -> None:
    argv = said(disk("<source file='/i'/>", kind="file", more="<shareable/>"))
    assert spec(argv, "-blockdev", driver="file")["cache"] == {"direct": True, "no-flush": False}
    found = spec(argv, "-device", id="virtio-disk0")
    assert (found["share-rw"], found["write-cache"]) == (True, "on")


def test_a_directory_is_a_file_system_of_fat() -> None:
    argv = said(disk("<source dir='/d'/>", kind="dir", driver="type='fat'", more="<readonly/>"))
    node = spec(argv, "-blockdev", driver="vvfat")
    assert (node["dir"], node["floppy"], node["rw"]) == ("/d", False, False)


def test_an_nvme_disk_is_its_controller_and_namespace() -> None:
    address = "<address domain='0x1' bus='0x02' slot='0x03' function='0x4'/>"
    argv = said(disk(f"<source type='pci' managed='yes' namespace='2'>{address}</source>", kind="nvme"))
    node = spec(argv, "-blockdev", driver="nvme")
    assert (node["device"], node["namespace"]) == ("0001:02:03.4", 2)


def test_a_vhost_user_disk_is_a_socket() -> None:
    source = "<source type='unix' path='/a,b'><reconnect enabled='yes' timeout='5'/></source>"
    shared = "<memoryBacking><access mode='shared'/></memoryBacking>"
    domain = document.parse(text(disk(source, kind="vhostuser"), head=shared), QEMU)
    assign_aliases(domain)
    argv = devices(domain, CONTEXT)
    assert "socket,id=chr-vu-virtio-disk0,path=/a,,b,reconnect=5" in argv
    assert spec(argv, "-device", driver="vhost-user-blk-pci")["chardev"] == "chr-vu-virtio-disk0"
    assert specs(argv, "-blockdev") == []


def test_reservations_go_through_a_helper() -> None:
    helper = "<reservations managed='no'><source type='unix' path='/pr.sock' mode='client'/></reservations>"
    target = "<target dev='sda' bus='scsi'/>"
    lun = f"<disk type='block' device='lun'><driver type='raw'/><source dev='/dev/x'>{helper}</source>{target}</disk>"
    argv = said("<controller type='scsi' model='virtio-scsi'/>" + lun)
    name = "pr-helper-libvirt-1-storage"
    assert spec(argv, "-object", id=name)["path"] == "/pr.sock"
    assert spec(argv, "-blockdev", driver="host_device")["pr-manager"] == name
    found = spec(argv, "-device", driver="scsi-block")
    assert found["bootindex"] == 1
    assert "device_id" not in found
