"""From documents to command lines."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from hostel.drivers.qemu import document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command.context import Context
from hostel.drivers.qemu.command.machine import build
from hostel.errors import ErrorCode, VirtError
from hostel.model.domain.sysinfo import Entry, SysinfoSystem
from hostel.model.host_sysinfo import HostSysinfo
from support.domain import QEMU

HEAD = "<domain type='{kind}'><name>{name}</name><memory unit='MiB'>64</memory><os><type{machine}>hvm</type>{os}</os>"
DISK = "<disk type='file' device='{kind}'><driver type='raw'/><source file='{path}'/><target dev='{dev}'/>{more}</disk>"


def argv_of(
    devices: str, *, os: str = "", name: str = "g", machine: str = "", body: str = "", kind: str = "qemu"
) -> list[str]:
    head = HEAD.format(kind=kind, os=os, name=name, machine=machine and f" machine='{machine}'")
    domain = document.parse(f"{head}{body}<devices>{devices}</devices></domain>", QEMU)
    assign_aliases(domain)
    return build(domain, Context("/usr/bin/qemu", Path("/run/monitor"), {"default": "virbr0", "nat": None}.get))


def disk(dev: str, *, kind: str = "disk", path: str = "/d", more: str = "") -> str:
    return DISK.format(dev=dev, kind=kind, path=path, more=more)


def after(argv: list[str], option: str) -> list[str]:
    return [argv[index + 1] for index, value in enumerate(argv) if value == option]


def device(argv: list[str], name: str) -> dict[str, Any]:
    found = [spec for spec in map(json.loads, after(argv, "-device")) if spec.get("id") == name]
    assert len(found) == 1
    return found[0]  # type: ignore[no-any-return]


def test_path_with_commas_and_quotes_stays_one_json_string() -> None:
    nodes = [json.loads(text) for text in after(argv_of(disk("vda", path="/a,b=c &quot;x")), "-blockdev")]
    assert nodes[0]["filename"] == '/a,b=c "x'
    assert nodes[1] == {
        "node-name": "libvirt-1-format", "read-only": False, "driver": "raw", "file": "libvirt-1-storage",
    }  # fmt: skip
    assert nodes[0]["discard"] == "unmap"


@pytest.mark.parametrize(("emulator", "said"), [("x86_64", ["host,migratable=off"]), ("i386", ["host"])])
def test_that_a_processor_cannot_move_is_said_to_emulators_that_libvirt_says_it_to(
    emulator: str, said: list[str]
) -> None:
    body = "<cpu mode='host-passthrough' migratable='off'/>"
    domain = document.parse(f"{HEAD.format(kind='kvm', os='', name='g', machine='')}{body}</domain>", QEMU)
    assign_aliases(domain)
    argv = build(domain, Context(f"/usr/bin/qemu-system-{emulator}", Path("/run/monitor"), lambda _: None))
    assert after(argv, "-cpu") == said


def test_channel_of_spice_has_its_name_for_the_guest() -> None:
    argv = argv_of("<channel type='qemu-vdagent'><target type='virtio'/></channel>")
    assert device(argv, "channel0")["name"] == "com.redhat.spice.0"


def test_comma_in_the_name_is_doubled() -> None:
    assert after(argv_of("", name="a,b"), "-name") == ["guest=a,,b,debug-threads=on"]


@pytest.mark.parametrize(
    ("cache", "direct", "no_flush", "write_cache"),
    [
        ("none", True, False, "on"),
        ("writeback", False, False, "on"),
        ("writethrough", False, False, "off"),
        ("directsync", True, False, "off"),
        ("unsafe", False, True, "on"),
    ],
)
def test_cache_mode_sets_both_nodes_and_the_device(cache: str, direct: bool, no_flush: bool, write_cache: str) -> None:
    argv = argv_of(disk("vda").replace("type='raw'", f"type='raw' cache='{cache}'"))
    for text in after(argv, "-blockdev"):
        assert json.loads(text)["cache"] == {"direct": direct, "no-flush": no_flush}
    assert device(argv, "virtio-disk0")["write-cache"] == write_cache


def test_boot_dev_list_numbers_the_first_device_of_each_kind() -> None:
    two = "<boot dev='cdrom'/><boot dev='hd'/><bootmenu enable='yes' timeout='3000'/>"
    argv = argv_of(disk("vda") + disk("vdb") + disk("hdc", kind="cdrom"), os=two)
    assert device(argv, "virtio-disk0")["bootindex"] == 2
    assert "bootindex" not in device(argv, "virtio-disk1")
    assert device(argv, "ide0-1-0")["bootindex"] == 1
    assert after(argv, "-boot") == ["menu=on,splash-time=3000,strict=on"]


def test_per_device_order_wins_a_place_and_excludes_boot_dev() -> None:
    devices = disk("vda", more="<boot order='2'/>") + disk("vdb", more="<boot order='1'/>")
    assert device(argv_of(devices), "virtio-disk1")["bootindex"] == 1
    with pytest.raises(VirtError, match="cannot be used together"):
        argv_of(devices, os="<boot dev='hd'/>")


def test_network_is_its_bridge_or_user_mode() -> None:
    card = "<interface type='network'><source network='{}'/></interface>"
    backends = [json.loads(text) for text in after(argv_of(card.format("default") + card.format("nat")), "-netdev")]
    assert backends == [{"type": "bridge", "br": "virbr0", "id": "hostnet0"}, {"type": "user", "id": "hostnet1"}]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("port='-1'", "127.0.0.1:0,to=59635,id=vnc0,audiodev=audio1"),
        ("port='5907'", "127.0.0.1:7,id=vnc0,audiodev=audio1"),
        ("port='5907' autoport='yes' listen='::'", "[::]:0,to=59635,id=vnc0,audiodev=audio1"),
        ("port='5901' websocket='5800' passwd='x'", "127.0.0.1:1,id=vnc0,websocket=5800,password=on,audiodev=audio1"),
    ],
)
def test_vnc_has_its_port_or_leaves_it_to_qemu(attributes: str, expected: str) -> None:
    assert after(argv_of(f"<graphics type='vnc' {attributes}/>"), "-vnc") == [expected]


@pytest.mark.parametrize(
    ("attributes", "inside", "expected"),
    [
        ("port='5907' passwd='x'", "", "port=5907,addr=127.0.0.1,seamless-migration=on"),
        ("autoport='yes' listen='::1'", "", "port=5901,addr=::1,disable-ticketing=on,seamless-migration=on"),
        ("", "<listen type='none'/>", "port=0,disable-ticketing=on,seamless-migration=on"),
        (
            "",
            "<listen type='socket' socket='/a,b'/>",
            "unix=on,addr=/a,,b,disable-ticketing=on,seamless-migration=on",
        ),
        (
            "port='5901' defaultMode='insecure'",
            "<channel name='main' mode='insecure'/><image compression='quic'/><jpeg compression='never'/>"
            "<zlib compression='always'/><playback compression='off'/><streaming mode='all'/>"
            "<clipboard copypaste='no'/><mouse mode='server'/><filetransfer enable='no'/>",
            "port=5901,addr=127.0.0.1,agent-mouse=off,disable-ticketing=on,plaintext-channel=default,"
            "plaintext-channel=main,image-compression=quic,jpeg-wan-compression=never,"
            "zlib-glz-wan-compression=always,playback-compression=off,streaming-video=all,disable-copy-paste=on,"
            "disable-agent-file-xfer=on,seamless-migration=on",
        ),
        (
            "",
            "<listen type='none'/><gl enable='yes' rendernode='/r,1'/>",
            "port=0,disable-ticketing=on,gl=on,rendernode=/r,,1,seamless-migration=on",
        ),
    ],
)
def test_spice_is_said_as_libvirt_says_it(attributes: str, inside: str, expected: str) -> None:
    assert after(argv_of(f"<graphics type='spice' {attributes}>{inside}</graphics>"), "-spice") == [expected]


@pytest.mark.parametrize(
    ("attributes", "inside", "message"),
    [
        ("port='5901' tlsPort='5902'", "", "but TLS is disabled in qemu.conf"),
        ("port='5901' tlsPort='-1'", "", "but spice TLS is disabled in qemu.conf"),
        ("port='5901' defaultMode='secure'", "", "defaultMode secure requested"),
        ("port='5901'", "<channel name='main' mode='secure'/>", "secure channels set"),
    ],
)
def test_spice_without_what_it_needs_is_refused(attributes: str, inside: str, message: str) -> None:
    with pytest.raises(VirtError, match=message):
        argv_of(f"<graphics type='spice' {attributes}>{inside}</graphics>")


def test_spice_that_this_qemu_lacks_is_refused() -> None:
    domain = document.parse(
        HEAD.format(kind="qemu", os="", name="g", machine="") + "<devices><graphics type='spice'/></devices></domain>",
        QEMU,
    )
    assign_aliases(domain)
    context = Context("/usr/bin/qemu", Path("/run/monitor"), lambda name: None, has_spice=False)
    with pytest.raises(VirtError, match=r"graphics type='spice'; write one of vnc, sdl, egl-headless, dbus$"):
        build(domain, context)


def test_vnc_port_below_the_first_is_refused() -> None:
    with pytest.raises(VirtError, match="VNC ports are 5900 to 65535"):
        argv_of("<graphics type='vnc' port='80'/>")


def test_third_ide_controller_is_refused() -> None:
    with pytest.raises(VirtError, match="Only 1 IDE controller is supported"):
        argv_of(disk("hdk"))


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a\nb", "", "x" * 300])
def test_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(VirtError, match="name"):
        argv_of("", name=name)


def test_entities_are_refused() -> None:
    with pytest.raises(VirtError, match="document type"):
        document.parse(
            '<!DOCTYPE d [<!ENTITY x SYSTEM "/etc/passwd">]><domain type="qemu"><name>&x;</name></domain>', QEMU
        )


@pytest.mark.parametrize(
    "device",
    [
        "<frob/>",
    ],
)
def test_device_that_the_guest_would_miss_is_refused(device: str) -> None:
    name = device[1:].split()[0].split(">")[0].rstrip("/")
    with pytest.raises(VirtError, match=f"<{name}> is not supported") as caught:
        argv_of(device)
    assert caught.value.code == ErrorCode.CONFIG_UNSUPPORTED


def test_firmware_is_in_flash_or_in_rom_and_never_left_out() -> None:
    argv = argv_of("", os="<loader>/bios.bin</loader>")
    assert argv[argv.index("-bios") + 1] == "/bios.bin"
    loader = "<loader readonly='yes' secure='yes' type='pflash'>/fw/CODE.fd</loader><nvram>/fw/VARS.fd</nvram>"
    argv = argv_of("", os=loader, machine="q35", body="<features><acpi/><smm state='on'/></features>")
    assert "pflash0=libvirt-pflash0-format,pflash1=libvirt-pflash1-format" in argv[argv.index("-machine") + 1]
    nodes = [json.loads(value) for option, value in itertools.pairwise(argv) if option == "-blockdev"]
    assert [node.get("filename", node.get("read-only")) for node in nodes] == [
        "/fw/CODE.fd",
        True,
        "/fw/VARS.fd",
        False,
    ]
    assert "driver=cfi.pflash01,property=secure,value=on" in argv


def test_bios_speaks_on_the_serial_port_where_the_document_wants_it() -> None:
    serial = "<serial type='null'/>"
    argv = argv_of(serial, os="<bios useserial='yes'/>", body="<clock><timer name='hpet' present='no'/></clock>")
    assert ",graphics=off,hpet=off" in argv[argv.index("-machine") + 1]
    assert not any("graphics" in word for word in argv_of(serial, os="<bios useserial='no'/>"))
    with pytest.raises(VirtError, match="need at least one serial port to use BIOS serial output"):
        argv_of("", os="<bios useserial='yes'/>")


def test_ring_of_dirty_pages_is_a_property_of_kvm() -> None:
    body = "<features><kvm><dirty-ring state='{}' size='4096'/></kvm></features>"
    assert "kvm,dirty-ring-size=4096" in argv_of("", body=body.format("on"), kind="kvm")
    assert "kvm" in argv_of("", body=body.format("off"), kind="kvm")
    assert "tcg" in argv_of("", body=body.format("on"))


def confined(devices: str, body: str = "") -> list[str]:
    domain = document.parse(
        f"{HEAD.format(kind='qemu', os='', name='g', machine='')}{body}<devices>{devices}</devices></domain>", QEMU
    )
    assign_aliases(domain)
    return build(domain, Context("/usr/bin/qemu", Path("/run/monitor"), lambda _: "virbr0", is_confined=True))


def test_qemu_is_confined_unless_it_runs_the_helper_for_bridges() -> None:
    argv = confined("")
    assert argv[argv.index("-sandbox") + 1] == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert "-sandbox" not in confined("<interface type='bridge'><source bridge='br0'/></interface>")
    tune = "<memoryBacking><allocation mode='immediate'/></memoryBacking><numatune><memory nodeset='0'/></numatune>"
    argv = confined("", tune)
    assert argv[argv.index("-sandbox") + 1] == "on,obsolete=deny,elevateprivileges=deny,spawn=deny"


SMBIOS = """<sysinfo type='smbios'><bios><entry name='vendor'>A, B</entry></bios><system>{}</system><chassis>
<entry name='sku'>s</entry><entry name='manufacturer'>c</entry></chassis>
<oemStrings><entry>one</entry><entry>a,b</entry></oemStrings></sysinfo>
<sysinfo type='fwcfg'><entry name='opt/x'>v,w</entry><entry name='opt/y' file='/f'/></sysinfo>"""


def told(system: str, mode: str = "sysinfo", hosts: HostSysinfo | None = None) -> list[str]:
    os = f"<smbios mode='{mode}'/>"
    domain = document.parse(
        f"{HEAD.format(kind='qemu', os=os, name='g', machine='')}{SMBIOS.format(system)}</domain>", QEMU
    )
    assign_aliases(domain)
    context = Context("/usr/bin/qemu", Path("/run/monitor"), lambda _: None, smbios=lambda: hosts)
    argv = build(domain, context)
    return [value for option, value in itertools.pairwise(argv) if option in ("-smbios", "-fw_cfg")]


def test_firmware_tells_the_guest_what_the_document_says() -> None:
    serial = "<entry name='serial'>ds=nocloud</entry><entry name='product'>p</entry>"
    files = ["name=opt/x,string=v,,w", "name=opt/y,file=/f"]
    assert told(serial) == [
        "type=0,vendor=A,, B",
        "type=1,product=p,serial=ds=nocloud",
        "type=3,manufacturer=c,sku=s",
        "type=11,value=one,value=a,,b",
        *files,
    ]
    assert told(serial, "emulate") == files
    with pytest.raises(VirtError, match="QEMU has no 'colour' in SMBIOS block 1"):
        told("<entry name='colour'>red</entry>")


def test_firmware_tells_what_the_hosts_does_but_for_its_identity() -> None:
    entries = [Entry(name="uuid", value="4c4c4544-0000-0000-0000-000000000000"), Entry(name="family", value="f")]
    hosts = HostSysinfo(type="smbios", system=SysinfoSystem(entries=entries))
    assert told("", "host", hosts)[0] == "type=1,family=f"
    with pytest.raises(VirtError, match="Host SMBIOS information is not available"):
        told("", "host")
