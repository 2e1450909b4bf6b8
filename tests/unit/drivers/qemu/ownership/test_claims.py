"""Which files a machine is given, and the labels of its document."""

from __future__ import annotations

import pytest

from hostel.drivers.qemu.ownership import dac, label
from hostel.drivers.qemu.ownership.claims import Claim, Return, Terms, claims
from hostel.drivers.qemu.ownership.user import Identity, Owner
from hostel.drivers.qemu.status import BlockJob, Plug, Status
from hostel.errors import ErrorCode, VirtError
from hostel.model.backup import read_backup
from hostel.model.domain.domain import Domain
from support import refused
from support.domain import defined

QEMU = Identity(Owner(4242, 4343))
DISK = (
    "<disk type='{kind}' device='{device}'><driver name='qemu' type='qcow2'/>{rest}"
    "<target dev='{dev}' bus='sata'/></disk>"
)


def disk(rest: str, *, kind: str = "file", device: str = "disk", dev: str = "sda") -> str:
    return DISK.format(kind=kind, device=device, rest=rest, dev=dev)


def live(devices: str = "", *, os: str = "", body: str = "") -> Domain:
    domain = defined(refused.document(devices, os=os, body=body))
    label.generate(domain, QEMU)
    return domain


def backs(domain: Domain, identity: Identity = QEMU) -> dict[str, Return]:
    found = claims(Status(domain, 1, 0, 0, "", 0), dac.terms(domain, identity))
    return {path: claim.back for path, claim in found.items()}


def test_a_disk_s_own_image_is_given_back_and_what_it_stands_on_is_others_too() -> None:
    below = (
        "<backingStore type='file'><format type='qcow2'/><source file='/base'/>"
        "<backingStore type='block'><format type='raw'/><source dev='/dev/base'/><backingStore/></backingStore>"
        "</backingStore>"
    )
    assert backs(live(disk(f"<source file='/top'/>{below}"))) == {
        "/top": Return.REMEMBERED, "/base": Return.NEVER, "/dev/base": Return.NEVER,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rest", "device"),
    [("<source file='/a'/>|<readonly/>", "disk"), ("<source file='/a'/>|<shareable/>", "disk"),
     ("<source file='/a'/>|", "cdrom")],
)  # fmt: skip
def test_what_machines_share_is_not_given_back(rest: str, device: str) -> None:
    source, _, flag = rest.partition("|")
    xml = disk(source, device=device).replace("</disk>", f"{flag}</disk>")
    assert backs(live(xml)) == {"/a": Return.NEVER}


def test_what_is_no_file_of_the_host_and_what_is_open_already_is_nobody_s_here() -> None:
    server = "<source protocol='nbd' name='x'><host name='h'/></source>"
    assert backs(live(disk(server, kind="network") + disk("<source file='/b' fdgroup='g'/>", dev="sdb"))) == {}


def test_labels_of_images_count_before_the_machine_s() -> None:
    labelled = "<source file='/a'><seclabel model='dac' relabel='yes'><label>+7:+8</label></seclabel></source>"
    kept = "<source file='/b'><seclabel model='dac' relabel='no'/></source>"
    other = "<backingStore type='file'><format type='raw'/><source file='/c'/><backingStore/></backingStore>"
    domain = live(disk(labelled + other) + disk(kept + other.replace("/c", "/d"), dev="sdb"))
    found = claims(Status(domain, 1, 0, 0, "", 0), dac.terms(domain, QEMU))
    assert {path: claim.value for path, claim in found.items()} == {"/a": "+7:+8", "/c": "+7:+8"}


def test_all_that_a_machine_opens_by_name() -> None:
    devices = (
        "<serial type='file'><source path='/serial'/><log file='/log'/></serial>"
        "<serial type='dev'><source path='/dev/ttyS7'/></serial><serial type='pipe'><source path='/pipe'/></serial>"
        "<channel type='unix'><source mode='connect' path='/socket'/><target type='virtio' name='a'/></channel>"
        "<channel type='unix'><source mode='bind' path='/ours'/><target type='virtio' name='b'/></channel>"
        "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event7'/></input>"
        "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm7'/></backend></tpm>"
        "<hostdev mode='subsystem' type='usb'><source><address bus='7' device='8'/></source></hostdev>"
    )
    os = "<kernel>/kernel</kernel><initrd>/initrd</initrd><dtb>/dtb</dtb>"
    firmware = "<sysinfo type='fwcfg'><entry name='opt/a' file='/entry'/></sysinfo>"
    found = backs(live(devices, os=os, body=firmware))
    assert found.pop("/dev/tpm7") is Return.USUAL
    assert set(found.values()) == {Return.REMEMBERED}
    assert set(found) == {
        "/serial", "/log", "/dev/ttyS7", "/pipe", "/socket", "/dev/input/event7", "/dev/bus/usb/007/008",
        "/kernel", "/initrd", "/dtb", "/entry",
    }  # fmt: skip


def test_uefi_s_variables_are_the_machine_s_and_its_code_is_everybody_s() -> None:
    os = "<loader readonly='yes' type='pflash'>/code</loader><nvram>/vars</nvram>"
    assert backs(live(os=os)) == {"/vars": Return.REMEMBERED}


def test_what_is_on_its_way_is_needed_as_well() -> None:
    domain = live(disk("<source file='/a'/>"))
    coming = domain.devices.disks[0].copy()
    assert coming.source is not None
    coming.source.file = "/new"
    backup = read_backup(
        "<domainbackup><disks><disk name='sda' type='file'><target file='/copy'/></disk></disks></domainbackup>"
    )
    backup.disks.disks[0].index = 7
    plugs = (Plug(way="medium", alias="x", disk=coming),)
    found = claims(Status(domain, 1, 0, 0, "", 0, plugs=plugs, backup=backup), dac.terms(domain, QEMU))
    assert set(found) == {"/a", "/new", "/copy"}


def test_nothing_is_given_where_that_is_not_wanted() -> None:
    domain = live(disk("<source file='/a'/>"))
    assert backs(domain, QEMU._replace(gives=False)) == {}
    kept = "<seclabel type='static' model='dac' relabel='no'><label>+7:+8</label></seclabel>"
    assert backs(live(disk("<source file='/a'/>"), body=kept)) == {}
    assert backs(live(disk("<source file='/a'/>"), body="<seclabel type='none' model='dac'/>")) == {}


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("", ("dynamic", True, "+4242:+4343", "+4242:+4343")),
        ("<seclabel type='dynamic' model='dac'/>", ("dynamic", True, "+4242:+4343", "+4242:+4343")),
        (
            "<seclabel type='static' model='dac' relabel='yes'><label>+7:+8</label></seclabel>",
            ("static", True, "+7:+8", "+7:+8"),
        ),
        ("<seclabel type='static' model='dac'><label>+7:+8</label></seclabel>", ("static", False, "+7:+8", None)),
        ("<seclabel type='none' model='dac'/>", ("none", None, None, None)),
    ],
)
def test_labels_that_machines_get(body: str, after: tuple[str, bool | None, str | None, str | None]) -> None:
    found = label.label_of(live(body=body))
    assert found is not None
    assert (
        found.type,
        found.relabel or (None if found.type == "none" else False),
        found.label,
        found.image_label,
    ) == after


def test_a_machine_without_a_label_gets_none_where_that_is_the_default() -> None:
    domain = defined(refused.document())
    label.generate(domain, QEMU._replace(is_usual=False))
    assert domain.seclabels == []


@pytest.mark.parametrize(
    ("devices", "body"),
    [
        ("", "<seclabel type='dynamic' model='selinux'/>"),
        ("", "<seclabel type='static' model='selinux'><label>a</label></seclabel>"),
        (disk("<source file='/a'><seclabel model='selinux' relabel='no'/></source>"), ""),
        ("<serial type='file'><source path='/s'><seclabel model='selinux' relabel='no'/></source></serial>", ""),
    ],
)
def test_labels_of_drivers_that_are_not_there_are_refused(devices: str, body: str) -> None:
    domain = defined(refused.document(devices, body=body))
    with pytest.raises(VirtError, match="Security driver model 'selinux' is not available") as caught:
        label.check_models(domain, ["dac"])
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED


def test_a_session_has_no_driver_for_owners() -> None:
    domain = defined(refused.document(body="<seclabel type='none' model='none'/>"))
    label.check_models(domain, [])
    with pytest.raises(VirtError, match="Security driver model 'dac' is not available"):
        label.check_models(defined(refused.document(body="<seclabel type='none' model='dac'/>")), [])


def test_who_a_label_names_must_be_there() -> None:
    with pytest.raises(VirtError, match="Failed to parse user 'nosuch'"):
        live(body="<seclabel type='static' model='dac'><label>nosuch:root</label></seclabel>")


def test_each_use_of_a_file_has_its_context() -> None:
    """By which SELinux keeps machines apart: their own, shared, only read."""
    below = (
        "<backingStore type='file' index='2'><format type='raw'/><source file='/low'/><backingStore/></backingStore>"
    )
    own = "<source file='/own'><seclabel model='selinux' relabel='yes'><label>a:b:c:s0</label></seclabel></source>"
    devices = disk("<source file='/top'/>" + below) + disk("<source file='/cd'/>", device="cdrom", dev="sdb")
    devices += disk("<source file='/shared'/>", dev="sdc").replace("</disk>", "<shareable/></disk>")
    devices += disk(own, dev="sdd")
    domain = live(devices, os="<kernel>/kernel</kernel>")
    store = domain.devices.disks[0].backing_store
    assert store is not None
    store.index = 2
    terms = Terms("selinux", "own", "shared", "read", str)
    found = claims(Status(domain, 1, 0, 0, "", 0), terms)
    assert {path: (claim.value, claim.back) for path, claim in found.items()} == {
        "/top": ("own", Return.REMEMBERED), "/low": ("read", Return.NEVER), "/cd": ("read", Return.NEVER),
        "/shared": ("shared", Return.NEVER), "/own": ("a:b:c:s0", Return.REMEMBERED),
        "/kernel": ("read", Return.REMEMBERED),
    }  # fmt: skip
    job = BlockJob(name="j", kind="active-commit", disk="sda", base=2)
    assert claims(Status(domain, 1, 0, 0, "", 0, jobs=(job,)), terms)["/low"] == Claim("/low", "own", Return.NEVER)
