"""Command lines of QEMU as documents."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import pytest

from hostel.drivers.qemu import document
from hostel.drivers.qemu.alias import assign_aliases
from hostel.drivers.qemu.command.context import Context
from hostel.drivers.qemu.command.machine import build
from hostel.drivers.qemu.command.support import SAID
from hostel.errors import ModelError
from hostel.model.domain.devices.address import DriveAddress
from hostel.model.domain.devices.disk import Disk
from hostel.model.domain.devices.interface import Interface
from hostel.model.domain.domain import Domain
from hostel.model.native.qemu.commandline import parse_command_line
from hostel.model.native.qemu.reading import read_qemu
from support.domain import QEMU

RUN = "qemu-system-x86_64 -nodefaults "
# The command line that people ask about most.
WHOLE = (
    "qemu-kvm -name c1 -smp 2 -m 128 -cpu host"
    " -drive file=/c1.qcow2,if=virtio,media=disk,cache=writeback,format=qcow2"
    " -net nic,macaddr=52:54:00:11:22:33,model=virtio -net tap,script=/etc/my-ifup"
    " -vnc :0 -boot order=dc,once=d,menu=on,splash=/s.jpg"
)


def read(options: str) -> Domain:
    return read_qemu(RUN + options)


def disk(options: str) -> Disk:
    (found,) = read(options).devices.disks
    return found


def card(options: str) -> Interface:
    (found,) = read(options).devices.interfaces
    return found


def test_a_whole_command_line_is_a_document() -> None:
    domain = read_qemu(WHOLE)
    assert (domain.type, domain.name, domain.memory and domain.memory.to_kib()) == ("kvm", "c1", 131072)
    assert domain.vcpu is not None
    assert (domain.vcpu.value, domain.cpu and domain.cpu.mode) == (2, "host-passthrough")
    (drive,), (net,), (screen,) = domain.devices.disks, domain.devices.interfaces, domain.devices.graphics
    assert drive.source is not None
    assert drive.driver is not None
    assert (drive.target.dev, drive.source.file, drive.driver.type) == ("vda", "/c1.qcow2", "qcow2")
    assert drive.driver.cache == "writeback"
    assert net.mac is not None
    assert (net.type, net.script, net.model, net.mac.address) == (
        "ethernet", "/etc/my-ifup", "virtio", "52:54:00:11:22:33",
    )  # fmt: skip
    assert screen.port == 5900
    assert domain.os is not None
    assert domain.os.boot == ["cdrom", "hd"]
    assert domain.os.bootmenu is not None
    assert domain.os.bootmenu.enable is True
    assert domain.qemu_commandline is not None
    assert [argument.value for argument in domain.qemu_commandline.arguments] == ["-boot", "splash=/s.jpg"]


def said(domain: Domain) -> list[str]:
    """What a machine of the document would be started with."""
    assign_aliases(domain)
    return build(domain, Context("/usr/bin/qemu-system-x86_64", Path("/run/monitor"), lambda name: None), SAID)


@pytest.mark.parametrize(
    "line",
    [
        WHOLE.replace("qemu-kvm", "qemu-system-x86_64"),
        RUN + "-M q35 -m 64 -hda /a.img -cdrom /b.iso -device virtio-scsi-pci,id=s0 -nic user,model=e1000e",
        RUN + "-m 64 -fda /f.img -hdb /b.qcow2 -drive file=/c,if=scsi -blockdev raw,node-name=n,file.driver=file,"
        "file.filename=/d -device virtio-blk-pci,drive=n,serial=x -netdev user,id=u -device rtl8139,netdev=u",
    ],
)
def test_the_document_makes_a_command_line_again(line: str) -> None:
    argv = said(document.parse(read_qemu(line).format(), QEMU))
    files = [json.loads(word).get("filename") for word in argv if word.startswith('{"driver": "file"')]
    assert sorted(files) == sorted(str(item.source.file) for item in read_qemu(line).devices.disks if item.source)


def test_what_the_driver_says_is_read_again() -> None:
    text = """<domain type='qemu'><name>g</name><memory unit='MiB'>64</memory><os><type>hvm</type></os><devices>
    <disk><driver type='qcow2' cache='directsync' io='native'/><source file='/a,b'/><target dev='vda'/></disk>
    <disk type='file' device='cdrom'><source file='/c.iso'/><target dev='hdc'/></disk>
    <controller type='scsi' model='virtio-scsi'/>
    <disk type='block'><driver type='raw' cache='none'/><source dev='/dev/x'/><target dev='sda' bus='scsi'/></disk>
    <interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>
    </devices></domain>"""
    once = said(document.parse(text, QEMU))
    again = said(document.parse(read_qemu(shlex.join(once)).format(), QEMU))
    kept = ("-blockdev", "-netdev", "-device", "-m", "-smp", "-machine")
    assert [pair for pair in itertools.pairwise(again) if pair[0] in kept] == [
        pair for pair in itertools.pairwise(once) if pair[0] in kept
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("host,hv_relaxed,hv_spinlocks=0x1fff,hv_vapic,hv_time,kvm=off",
         "host,hv-time=on,hv-relaxed=on,hv-vapic=on,hv-spinlocks=0x1fff,kvm=off"),
        ("host,migratable=off,+invtsc,host-phys-bits=on,-x2apic,topoext",
         "host,invtsc=on,x2apic=off,topoext=on,migratable=off,host-phys-bits=on"),
        ("host,hv-passthrough,l3-cache=on,host-cache-info=off",
         "host,l3-cache=on,host-cache-info=off,hv-passthrough=on"),
        ("host,hv_vendor_id=1234567890ab,hv-vpindex,hv-synic,hv-stimer,hv-stimer-direct=on",
         "host,hv-vpindex=on,hv-synic=on,hv-stimer=on,hv-stimer-direct=on,hv-vendor-id=1234567890ab"),
        ("qemu64,vendor=AuthenticAMD,lahf_lm,phys-bits=40,pmu=off,kvm_pv_eoi=on,tsc-frequency=2000000000",
         "qemu64,lahf_lm=on,vendor=AuthenticAMD,phys-bits=40,tsc-frequency=2000000000,kvm-pv-eoi=on,pmu=off"),
        ("max,hv-crash", "max,hv-crash"),
    ],
)  # fmt: skip
def test_what_the_guest_is_told_of_the_hypervisor_is_said_in_the_document(words: str, expected: str) -> None:
    domain = document.parse(read_qemu(f"{RUN}-accel kvm -cpu {words} -m 64 -rtc base=localtime").format(), QEMU)
    argv = said(domain)
    assert argv[argv.index("-cpu") + 1] == expected
    assert domain.clock is not None
    assert domain.clock.offset == "localtime"
    assert domain.qemu_commandline is None


@pytest.mark.parametrize(
    ("words", "name"),
    [("host,hv-spinlocks=5", "'5'"), ("qemu64,host-cache-info=perhaps", "'host-cache-info'"),
     ("qemu64,family=6", "'family'"), ("qemu64,migratable=7", "'migratable'")],
)  # fmt: skip
def test_what_no_document_says_of_a_processor_is_refused_by_name(words: str, name: str) -> None:
    with pytest.raises(ModelError, match=name) as caught:
        read_qemu(f"{RUN}-cpu {words}")
    assert caught.value.path == "-cpu"


def test_accelerator_and_board_are_read_with_their_properties() -> None:
    line = f"{RUN}-machine pc,graphics=off -accel kvm,dirty-ring-size=4096 -cpu host,kvm=off -serial null -m 64"
    argv = said(document.parse(read_qemu(line).format(), QEMU))
    assert "kvm,dirty-ring-size=4096" in argv
    assert "graphics=off" in argv[argv.index("-machine") + 1].split(",")
    assert argv[argv.index("-cpu") + 1] == "host,kvm=off"
    again = read_qemu(f"{RUN}-accel tcg,tb-size=64 -machine pc,graphics=off").format()
    assert "<tb-cache unit='MiB'>64</tb-cache>" in again
    assert "useserial" not in again


def test_memory_of_its_own_is_said_where_it_is_not_what_qemu_takes_anyway() -> None:
    line = "qemu -m 64 -machine pc,memory-backend=pc.ram -object {}"
    assert read_qemu(line.format("memory-backend-ram,id=pc.ram,size=64M")).memory_backing is None
    shared = read_qemu(line.format("memory-backend-memfd,id=pc.ram,size=64M,share=on")).memory_backing
    assert shared is not None
    assert (shared.source, shared.access) == ("memfd", "shared")
    for other in (
        "memory-backend-file,id=pc.ram,mem-path=/a",
        "memory-backend-ram,id=pc.ram,dump=off",
        "rng-random,id=r",
    ):
        with pytest.raises(ModelError):
            read_qemu(line.format(other))
    past = read_qemu("qemu -object memory-backend-ram,id=m,size=64M -numa node,memdev=m").qemu_commandline
    assert past is not None
    assert [argument.value for argument in past.arguments][:2] == ["-numa", "node,memdev=m"]


def test_words_are_those_of_a_shell() -> None:
    line = parse_command_line("A=1 LC_ALL=C \\\n qemu -name 'a b' --m 1  # why\n -S /disk.img")
    assert (line.program, line.environment) == ("qemu", {"A": "1", "LC_ALL": "C"})
    assert [(option.name, option.value) for option in line.options] == [
        ("name", "a b"), ("m", "1"), ("S", ""), ("hda", "/disk.img"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "dev", "bus", "place"),
    [
        ("-hdb /a", "hdb", "ide", (0, 0, 0, 1)),
        ("-cdrom /a", "hdc", "ide", (0, 1, 0, 0)),
        ("-fdb /a", "fdb", "fdc", (0, 0, 0, 1)),
        ("-drive file=/a,index=3", "hdd", "ide", (0, 1, 0, 1)),
        ("-drive file=/a,if=scsi,bus=1,unit=2", "sdj", "scsi", (1, 0, 0, 2)),
        ("-M q35 -drive file=/a,index=2", "sdc", "sata", (0, 0, 0, 2)),
        ("-drive if=none,id=d,file=/a -device ide-hd,drive=d,bus=ide.1,unit=1", "hdd", "ide", (0, 1, 0, 1)),
        ("-drive if=none,id=d,file=/a -device virtio-scsi-pci,id=s -device scsi-hd,drive=d,bus=s.0,scsi-id=3,lun=1",
         "sda", "scsi", (0, 0, 3, 1)),
    ],
)  # fmt: skip
def test_a_drive_has_the_place_that_qemu_gives_it(options: str, dev: str, bus: str, place: tuple[int, ...]) -> None:
    found = disk(options)
    assert (found.target.dev, found.target.bus) == (dev, bus)
    assert isinstance(found.address, DriveAddress)
    assert found.address.place == place


def test_drives_without_a_place_get_the_next() -> None:
    options = "-drive file=/a -cdrom /b -drive file=/c -drive file=/d -drive file=/e,if=virtio -drive file=/f,if=virtio"
    found = read(options).devices.disks
    assert [item.target.dev for item in found] == ["hda", "hdc", "hdb", "hdd", "vda", "vdb"]


def test_a_drive_says_how_its_image_is_opened() -> None:
    found = disk(
        "-drive file=/a,,b,format=raw,cache=off,aio=native,snapshot=on,readonly=on,werror=enospc,rerror=report,"
        "serial=S,discard=on,detect-zeroes=unmap,copy-on-read=on,throttling.bps-total=7,iops_rd_max=9"
    )
    driver, tune = found.driver, found.iotune
    assert driver is not None
    assert tune is not None
    assert found.source is not None
    assert found.source.file == "/a,b"
    assert (driver.cache, driver.io, driver.discard, driver.detect_zeroes) == ("none", "native", "unmap", "unmap")
    assert (driver.error_policy, driver.rerror_policy, driver.copy_on_read) == ("enospace", "report", True)
    assert (found.readonly, found.transient is not None, found.serial) == (True, True, "S")
    assert (tune.total_bytes_sec, tune.read_iops_sec_max) == (7, 9)


@pytest.mark.parametrize(
    ("file", "kind", "name"),
    [
        ("nbd:h:10809:exportname=e", "network", "e"),
        ("nbd+unix:///e?socket=/s", "network", "e"),
        ("https://h/a?b=c", "network", "a"),
        ("iscsi://h/iqn.2020-01.org:t/1", "network", "iqn.2020-01.org:t/1"),
        ("/dev/sdx", "block", None),
    ],
)
def test_a_file_may_be_a_server_or_a_device(file: str, kind: str, name: str | None) -> None:
    found = disk(f"-drive 'file={file},format=raw'")
    assert found.source is not None
    assert (found.type, found.source.name) == (kind, name)


def test_flash_is_the_firmware_and_its_variables() -> None:
    domain = read("-drive if=pflash,format=raw,readonly=on,file=/code.fd -drive if=pflash,format=raw,file=/vars.fd")
    assert domain.os is not None
    assert domain.os.loader is not None
    assert domain.os.nvram is not None
    assert (domain.os.loader.path, domain.os.loader.readonly, domain.os.nvram.path) == ("/code.fd", True, "/vars.fd")


@pytest.mark.parametrize(
    ("options", "kind", "model"),
    [
        ("-nic bridge,br=b,model=e1000", "bridge", "e1000"),
        ("-netdev tap,id=t,ifname=x,script=no -device virtio-net-pci,netdev=t,addr=0x5", "ethernet", "virtio"),
        ("-net nic -net user", "user", "e1000"),
        ("-nic socket,listen=:5000", "server", "e1000"),
    ],
)
def test_a_card_and_its_other_end_are_one_interface(options: str, kind: str, model: str) -> None:
    found = card(options)
    assert (found.type, found.model) == (kind, model)


def test_without_a_word_qemu_plugs_in_a_card_and_a_screen() -> None:
    devices = read_qemu("qemu-system-x86_64").devices
    assert [item.type for item in devices.interfaces] == ["user"]
    assert len(devices.videos) == 1
    assert read("").devices.interfaces == []


def test_what_a_document_has_no_element_for_goes_past_it() -> None:
    domain = read("-device edu,addr=4 -global a.b=c -monitor stdio -daemonize")
    assert domain.qemu_commandline is not None
    words = [argument.value for argument in domain.qemu_commandline.arguments]
    assert words == ["-device", "edu,addr=4", "-global", "a.b=c"]


def test_flash_chips_of_other_boards_go_past_the_document() -> None:
    domain = read("-drive file=/a.raw,format=raw,if=mtd -mtdblock /b.raw")
    assert domain.qemu_commandline is not None and domain.devices.disks == []
    words = [argument.value for argument in domain.qemu_commandline.arguments]
    assert words == ["-drive", "file=/a.raw,format=raw,if=mtd", "-mtdblock", "/b.raw"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no command"),
        ("qemu 'x", "not a command line"),
        ("qemu -m", "the value of the last option is missing"),
        ("qemu -m 64,slots=2", "'slots=2' cannot be said"),
        ("qemu -m x", "-m"),
        ("qemu -hda a.img", "write the whole path"),
        ("qemu -drive file=/a,if=xen", "if='xen'"),
        ("qemu -drive file=/a,frob=1", "'frob=1' cannot be said"),
        ("qemu -drive if=none,id=a,file=/a", "no -device is on the drive 'a'"),
        ("qemu -device virtio-blk-pci,drive=a", "there is no -drive or -blockdev 'a'"),
        ("qemu -boot e", "'e' is no boot device"),
        ("qemu -boot order=c,once=d", "one order for every start"),
        ("qemu -netdev user,id=a", "no card is on 'a'"),
        ("qemu -net nic", "1 cards and 0 back ends"),
        ("qemu -nic user,hostfwd=tcp::22-:22", "hostfwd"),
        ("qemu -drive file=https://u:p@h/x", "with a password"),
        ("qemu -blockdev driver=raw,node-name=a,file=a -device virtio-blk,drive=a", "without end"),
        ("qemu -drive file=/a -hda /b", "bus=0, unit=0 exists"),
        ("qemu -blockdev '{'", "not JSON"),
        ("qemu -smp 4,cores=3", "do not make 4"),
        ("qemu -vnc frob", "-vnc"),
        ("qemu -accel xen", "accel='xen'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_option(line: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        read_qemu(line)
