"""Xen's configuration as documents, and documents as Xen's configuration: xl's and xm's."""

from __future__ import annotations

import time

import pytest

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.hostdev import PciHostdev, UsbHostdev
from hostel.model.native.xen.reading import read_xl, read_xm
from hostel.model.native.xen.writing import write_xl, write_xm

UUID = "6a4cbb42-0d3c-4a18-8f1c-2ad8b0b2f9f1"
HEAD = f'name = "db"\nuuid = "{UUID}"\n'
MACHINE = (
    HEAD
    + """
builder = "hvm"
memory = 1024
maxmem = 2048
vcpus = 2
maxvcpus = 4
cpus = "0-3"
bios = "ovmf"
boot = "cdn"
nestedhvm = 0
cpuid = "host,sse3=1,tm=0"
hpet = 1
tsc_mode = "native"
passthrough = "share_pt"
vnuma = [ [ "pnode=0", "size=1024", "vcpus=0-1", "vdistances=10,21" ],
          [ "pnode=1", "size=1024", "vcpus=2-3", "vdistances=21,10" ] ]
disk = [ "/dev/vg/db,raw,xvda,rw,backendtype=phy",
         "format=qcow2, vdev=hdb, target=/img/a, b.qcow2", "vdev=hdc,devtype=cdrom" ]
vif = [ "mac=00:16:3e:00:00:01,bridge=br0.42,script=vif-openvswitch,model=e1000,rate=10MB/s",
        "mac=00:16:3e:00:00:02,bridge=br1,script=vif-bridge,type=vif" ]
pci = [ "0000:03:00.1,permissive=1" ]
usbdev = [ "hostbus=1,hostaddr=a" ]
usbctrl = [ "type=qusb,version=1,ports=4" ]
usbdevice = [ "tablet", "keyboard" ]
serial = [ "pty", "none", "tcp:127.0.0.1:4000,server,nowait" ]
parallel = "none"
channel = [ "connection=socket,path=/run/agent,name=org.qemu.guest_agent.0" ]
spice = 1
spicehost = "127.0.0.1"
spiceport = 5901
spicedisable_ticketing = 1
soundhw = "ac97"
device_model_args = [ "-name", "a<b" ]
"""
)
PARAVIRTUAL = (
    HEAD
    + """
bootloader = "/usr/bin/pygrub"
root = "/dev/xvda1"
extra = "ro"
vfb = [ "type=vnc,vncunused=0,vncdisplay=3,vncpasswd=secret" ]
disk = [ "phy:/dev/vg/db,xvda,w", "tap:qcow2:/img/x,xvdb,!" ]
vif = [ "mac=00:16:3e:00:00:01,script=vif-route,ip=192.0.2.1 2001:db8::1" ]
"""
)


def xen(inside: str, kind: str = "hvm", devices: str = "") -> str:
    return (
        f"<domain type='xen'><name>m</name><uuid>{UUID}</uuid><memory unit='MiB'>64</memory>"
        f"<os><type>{kind}</type></os>{inside}<devices>{devices}</devices></domain>"
    )


def test_machine_becomes_a_document() -> None:
    domain = read_xl(MACHINE)
    devices = domain.devices
    assert domain.os is not None and domain.os.loader is not None and domain.os.loader.type == "pflash"
    assert domain.vcpu is not None and (domain.vcpu.value, domain.vcpu.current) == (4, 2)
    assert [disk.target.dev for disk in devices.disks] == ["xvda", "hdb", "hdc"]
    assert devices.disks[1].source is not None and devices.disks[1].source.file == "/img/a, b.qcow2"
    assert devices.disks[2].source is None and devices.disks[2].readonly
    vlan = devices.interfaces[0].vlan
    assert vlan is not None and vlan.tags[0].id == 42
    bandwidth = devices.interfaces[0].bandwidth
    assert bandwidth is not None and bandwidth.outbound is not None and bandwidth.outbound.average == 10240
    assert devices.interfaces[1].model == "netfront"
    pci, usb = devices.hostdevs
    assert isinstance(pci, PciHostdev) and pci.source.write_filtering is False
    assert isinstance(usb, UsbHostdev) and usb.source.address is not None and usb.source.address.device == 10
    assert [port.target.port for port in devices.serials if port.target is not None] == [0, 2]
    assert domain.cpu is not None and [item.name for item in domain.cpu.features] == ["vmx", "pni", "tm"]


@pytest.mark.parametrize("text", [MACHINE, PARAVIRTUAL.replace("phy:/dev/vg/db,xvda,w", "/dev/vg/db,,xvda,rw").replace(
    "tap:qcow2:/img/x,xvdb,!", "/img/x,qcow2,xvdb,ro")])  # fmt: skip
def test_xl_and_document_say_the_same(text: str) -> None:
    document = read_xl(text).format()
    assert read_xl(write_xl(document)).format() == document


def test_xm_and_document_say_the_same() -> None:
    document = read_xm(PARAVIRTUAL).format()
    assert "<cmdline>root=/dev/xvda1 ro</cmdline>" in document and "port='5903'" in document
    assert read_xm(write_xm(document)).format() == document


def test_paravirtual_guest_has_a_console() -> None:
    assert "<target type='xen' port='0'/>" in read_xl(HEAD).format()
    assert "console" not in read_xl(HEAD + 'type = "hvm"\n').format()


def test_card_without_an_address_gets_one_of_xen_s() -> None:
    card = read_xl(HEAD + 'vif = [ "bridge=br0" ]\n').devices.interfaces[0]
    assert card.mac is not None and card.mac.address.startswith("00:16:3e:")


@pytest.mark.parametrize(
    ("target", "name", "hosts"),
    [("rbd:pool/img", "pool/img", []),
     (r"rbd:pool/img:auth_supported=none:mon_host=a\\:6321\\;b", "pool/img", [("a", "6321"), ("b", None)]),
     (r"rbd:p/i:mon_host=[2001\\:db8\\:\\:1]\\:6789", "p/i", [("2001:db8::1", "6789")])],
)  # fmt: skip
def test_images_of_ceph(target: str, name: str, hosts: list[tuple[str, str | None]]) -> None:
    disk = read_xl(HEAD + f'disk = [ "vdev=xvda,target={target}" ]\n').devices.disks[0]
    assert disk.source is not None and disk.source.name == name
    assert [(host.name, host.port) for host in disk.source.hosts] == hosts


@pytest.mark.parametrize(
    ("text", "path"),
    [("", "name"),
     ('name = "x"\nuuid = "y"', "uuid"),
     (HEAD + 'type = "vax"', "type"),
     (HEAD + 'memory = "much"', "memory"),
     (HEAD + "memory = [ 1 ]", "memory"),
     (HEAD + "vcpus = 0", "vcpus"),
     (HEAD + 'on_crash = "cry"', "on_crash"),
     (HEAD + 'passthrough = "x"', "passthrough"),
     (HEAD + 'cpuid = "0x1:eax=1"', "cpuid"),
     (HEAD + 'vnuma = [ [ "pnode=0" ] ]', "vnuma"),
     (HEAD + 'vnuma = [ [ "pnode=0", "size=1", "vcpus=0-9" ] ]', "vnuma"),
     (HEAD + 'disk = [ "vdev=xvda" ]', "disk"),
     (HEAD + 'disk = [ "format=vmdk,vdev=xvda,target=x" ]', "disk"),
     (HEAD + 'disk = [ "script=block,vdev=xvda,target=x" ]', "disk"),
     (HEAD + 'disk = [ "vdev=xvda,target=rbd:p/i:id=admin:key=c2VjcmV0" ]', "disk"),
     (HEAD + 'vif = [ "bridge" ]', "vif"),
     (HEAD + 'vif = [ "mac=nonsense" ]', "vif"),
     (HEAD + 'vif = [ "rate=fast" ]', "vif"),
     (HEAD + 'pci = [ "00:1f" ]', "pci"),
     (HEAD + 'usbdev = [ "hostbus=1" ]', "usbdev"),
     (HEAD + 'channel = [ "connection=pigeon,name=x" ]', "channel"),
     (HEAD + 'builder = "hvm"\nserial = "tty"', "serial"),
     (HEAD + 'builder = "hvm"\nsoundhw = "oboe"', "soundhw")],
)  # fmt: skip
def test_refusal_names_the_entry(text: str, path: str) -> None:
    with pytest.raises(ModelError) as refusal:
        read_xl(text)
    assert refusal.value.path == path


def test_xm_has_one_serial_port() -> None:
    with pytest.raises(ModelError, match="not supported by xen-xm") as refusal:
        read_xm(HEAD + 'builder = "hvm"\nkernel = "/hvmloader"\nserial = [ "pty", "pty" ]\n')
    assert refusal.value.code == ErrorCode.CONFIG_UNSUPPORTED


@pytest.mark.parametrize(
    ("xml", "path"),
    [(xen("").replace("'xen'", "'kvm'"), "/domain/@type"),
     (xen("", "exe"), "/domain/os/type"),
     (xen("<clock offset='timezone' timezone='CET'/>"), "/domain/clock/@offset"),
     (xen("<clock offset='utc' adjustment='reset'/>"), "/domain/clock/@adjustment"),
     (xen("<clock offset='utc'><timer name='pit'/></clock>"), "/domain/clock/timer[1]/@name"),
     (xen("", "hvm", "<interface type='network'><source network='default'/></interface>"),
      "/domain/devices/interface[1]/@type"),
     (xen("", "hvm", "<interface type='bridge'><source bridge='a,b'/></interface>"), "/domain/devices/interface[1]"),
     (xen("", "hvm", "<disk type='network'><source protocol='nbd'><host name='h'/></source><target dev='hda'/></disk>"),
      "/domain/devices/disk[1]/source/@protocol"),
     (xen("", "hvm", "<disk device='floppy'><target dev='fda'/></disk>"), "/domain/devices/disk[1]/@device")],
)  # fmt: skip
def test_refusal_names_the_element(xml: str, path: str) -> None:
    with pytest.raises(ModelError) as refusal:
        write_xl(xml)
    assert refusal.value.path == path


def test_guest_of_a_bootloader_has_the_devices_to_boot_from_that_its_document_says() -> None:
    xml = xen("<bootloader>/b</bootloader>", "hvm").replace("</os>", "<boot dev='network'/></os>")
    assert 'boot = "n"\n' in write_xl(xml)
    assert 'boot = "c"\n' in write_xl(xml.replace("<boot dev='network'/>", ""))


def test_no_text_of_a_document_becomes_an_entry_of_its_own() -> None:
    text = write_xl(xen("<description/>", "linux").replace("<name>m", "<name>m&quot;&#10;kernel = 'x"))
    assert read_xl(text).name == "m\"\nkernel = 'x"


def test_hostile_lists_end_soon() -> None:
    begin = time.process_time()
    for name in ("disk", "vif", "vfb", "channel", "usbctrl"):
        for value in (f'"{"," * 200_000}x"', f'"{"cdrom," * 100_000}x"', '"type=qusb,version=2", ' * 100_000):
            with pytest.raises(ModelError):
                read_xl(HEAD + f"{name} = [ {value} ]")
    assert time.process_time() - begin < 5
