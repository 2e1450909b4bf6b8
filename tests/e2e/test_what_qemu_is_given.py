"""What a document says past the devices reaches a real QEMU: variables, properties, windows on D-Bus, sound."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from hostel.drivers.base.machine import StatsFlag
from hostel.drivers.qemu.driver import QemuDriver
from hostel.drivers.qemu.status import Status

pytestmark = pytest.mark.qemu

MACHINE = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>given</name>
<memory unit='MiB'>64</memory><iothreads>1</iothreads><os><type machine='q35'>hvm</type></os>
<features><acpi/><smm state='on'><tseg unit='MiB'>8</tseg></smm><tcg><tb-cache unit='MiB'>64</tb-cache></tcg></features>
<cpu mode='maximum'><cache mode='emulate' level='3'/></cpu>
<clock offset='timezone' timezone='Asia/Tokyo'><timer name='rtc' tickpolicy='catchup'>
<catchup threshold='1' slew='2' limit='3'/></timer></clock>
<devices><serial type='dbus'><source channel='org.qemu.console.serial.0'/></serial><serial type='vc'/>
<serial type='null'><target type='isa-debug'/><address type='isa' iobase='0x402'/></serial>
<channel type='qemu-vdagent'><source><clipboard copypaste='yes'/><mouse mode='client'/></source>
<target type='virtio' name='com.redhat.spice.0'/></channel>
<channel type='null'><target type='guestfwd' address='10.0.2.1' port='4600'/></channel>
<graphics type='dbus' p2p='yes'><audio id='1'/></graphics><audio id='1' type='dbus'/>
<audio id='2' type='none' timerPeriod='40'><input mixingEngine='yes' fixedSettings='yes' voices='2' bufferLength='100'>
<settings frequency='44100' channels='2' format='s16'/></input></audio><audio id='3' type='file' path='{sound}'/>
<sound model='pcspk'><audio id='2'/></sound><sound model='usb' multichannel='yes'><audio id='3'/></sound>
<sound model='ich9'><audio id='1'/></sound><video><model type='virtio' blob='off'/></video>
<rng model='virtio'><backend model='builtin'/></rng></devices>
<qemu:commandline><qemu:env name='GIVEN' value='a b'/></qemu:commandline>
<qemu:override><qemu:device alias='rng0'><qemu:frontend>
<qemu:property name='max-bytes' type='unsigned' value='1024'/></qemu:frontend></qemu:device></qemu:override>
<qemu:deprecation behavior='omit'/></domain>"""


def test_qemu_gets_what_the_document_says(driver: QemuDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS_ALONE", "secret")
    ref = driver.domain_create(driver.domain_define_xml(MACHINE.format(sound=tmp_path / "x.wav")))
    pid = Status.parse((tmp_path / "run/qemu/given.xml").read_text()).pid
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {b"GIVEN=a b", b"TZ=Asia/Tokyo"} <= set(variables)
    assert not any(word.startswith(b"OURS_ALONE=") for word in variables)
    asked = {"path": "/machine/peripheral/rng0", "property": "max-bytes"}
    answer = driver.domain_qemu_monitor_command(ref, json.dumps({"execute": "qom-get", "arguments": asked}))
    assert json.loads(answer)["return"] == 1024
    ((_, numbers),) = driver.connect_get_all_domain_stats([ref], StatsFlag.IOTHREAD | StatsFlag.DIRTYRATE)
    assert (numbers["iothread.count"], numbers["iothread.1.poll-max-ns"]) == (1, 32768)
    assert (numbers["dirtyrate.calc_status"], numbers["dirtyrate.calc_mode"]) == (0, "page-sampling")
    with socket.socket(fileno=driver.domain_open_graphics_fd(ref, 0)) as client:
        client.settimeout(20)
        client.sendall(b"\0AUTH EXTERNAL 30\r\n")
        assert client.recv(64)
