"""Calls on three machines with python3-libvirt, one that runs, one that is off, one without a definition.

``calls_program.py URI FOLDER``: lines to evaluate come from the standard input; what each answers for each machine and
combination of flags, what it changes in the documents, and the events that it makes, go out as JSON.
"""

import json
import re
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import libvirt

libvirt.registerErrorHandler(lambda context, error: None, None)
libvirt.virEventRegisterDefaultImpl()


def turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


threading.Thread(target=turn, daemon=True).start()
uri, folder = sys.argv[1:]
c = libvirt.open(uri)
XML = """<domain type='qemu'><name>{name}</name><uuid>11111111-1111-4111-8111-11111111111{number}</uuid>
<maxMemory slots='4' unit='MiB'>1024</maxMemory><memory unit='MiB'>64</memory><vcpu current='2'>4</vcpu>
<iothreads>1</iothreads><os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<cpu><numa><cell id='0' cpus='0-3' memory='64' unit='MiB'/></numa></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{folder}/{name}.raw'/>
<target dev='vda' bus='virtio'/></disk><disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='pty'><target type='virtio' name='other'/></channel>
<memory model='virtio-mem'><target><size unit='MiB'>128</size><node>0</node><block unit='MiB'>2</block>
<requested unit='MiB'>64</requested></target><alias name='ua-d'/></memory>
<video><model type='vga'/></video><memballoon model='virtio'/></devices></domain>"""
MODULE = "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target><alias name='ua-m'/></memory>"
WHOLE = """<domain type='qemu'><name>whole</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os></domain>"""
events: list[tuple[Any, ...]] = []
KINDS = ("LIFECYCLE", "AGENT_LIFECYCLE", "TUNABLE", "METADATA_CHANGE", "BALLOON_CHANGE", "DEVICE_REMOVED")


def heard(connection: Any, domain: Any, *detail: Any) -> None:
    events.append((detail[-1], domain.name(), *detail[:-1]))


for kind in KINDS:
    c.domainEventRegisterAny(None, getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{kind}"), heard, kind)


def document(name: str, number: int) -> str:
    return XML.format(name=name, number=number, folder=folder)


run = c.defineXML(document("run", 1))
off = c.defineXML(document("off", 2))
whole = c.defineXML(WHOLE)


def on_demand(domain: Any, requested: int) -> str:
    """The machine's memory on demand with another request, in MiB, as people write sizes."""
    found = re.search("<memory model='virtio-mem'>.*?</memory>", domain.XMLDesc(), re.DOTALL)
    assert found is not None
    wanted = re.sub("unit='KiB'>[0-9]+</requested", f"unit='MiB'>{requested}</requested", found[0])
    return wanted.replace("'KiB'>131072<", "'MiB'>128<").replace("'KiB'>2048<", "'MiB'>2<")


def answered(call: Any, *arguments: Any) -> str:
    try:
        return str(call(*arguments))
    except libvirt.libvirtError as error:
        return f"error {error.get_error_code()} {error.get_error_domain()} {error}"


def each(call: Any, flags: Any = (0, 1, 2, 3), who: Any = None) -> dict[str, str]:
    """What a call answers, by machine and flags."""
    return {f"{it.name()} {flag}": answered(call, it, flag) for it in who or (run, off, tran) for flag in flags}


def documents() -> list[str]:
    return [
        f"{it.name()} {flag}: {line}"
        for it in (run, off, tran, whole)
        for flag in (0, libvirt.VIR_DOMAIN_XML_INACTIVE)
        for line in it.XMLDesc(flag).splitlines()
    ]


def settle() -> None:
    """Wait until no event has come for 0.2 s: they come by another way than answers, and QEMU makes some later."""
    deadline, before = time.monotonic() + 10, -1
    while len(events) != before:
        if time.monotonic() > deadline:
            raise TimeoutError(f"events do not end: {events}")
        before = len(events)
        time.sleep(0.2)


def taken() -> list[str]:
    """The events that have come, which are then no longer there; one that comes meanwhile stays for the next line."""
    return sorted(repr(events.pop(0)) for _ in range(len(events)))


with ExitStack() as ends:
    for it in (run, off, whole):
        ends.callback(answered, it.undefine)
    ends.callback(answered, run.destroy)
    run.create()
    tran = c.createXML(document("tran", 3), libvirt.VIR_DOMAIN_START_PAUSED)
    ends.callback(answered, tran.destroy)
    settle()
    before = documents()
    channels = [line for line in before if "<target type='virtio'" in line]
    told = [["the start", {"channels": "\n".join(channels)}, taken(), []]]
    for line in sys.stdin.read().splitlines():
        found = eval(line)
        if events or not all(answer.startswith("error") for answer in found.values()):  # what is refused makes none
            settle()
        after = documents()
        gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
        changes = [f"-{item}" for item in sorted(gone.elements())] + [f"+{item}" for item in sorted(come.elements())]
        told.append([line, found, taken(), changes])
        before = after
    print(json.dumps(told))
