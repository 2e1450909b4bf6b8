"""What a board, a processor and a clock are told, and what goes past the document."""

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
from hostel.drivers.qemu.environment import environment
from hostel.drivers.qemu.screens import choose_render_nodes
from hostel.drivers.qemu.settings import Settings
from hostel.errors import VirtError
from hostel.model.domain.domain import Domain
from support.domain import QEMU

HEAD = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>g</name>
<memory unit='MiB'>64</memory><os><type machine='q35'>hvm</type>{os}</os>{body}
<devices>{devices}</devices>{end}</domain>"""
OVERRIDE = (
    """<qemu:override><qemu:device alias='{alias}'><qemu:frontend>{}</qemu:frontend></qemu:device></qemu:override>"""
)
PROPERTY = "<qemu:property name='{}' type='{}' value='{}'/>"
RNG = "<rng model='virtio'><rate bytes='5' period='6'/><backend model='builtin'/></rng>"


def machine(devices: str = "", *, body: str = "", os: str = "", end: str = "") -> Domain:
    domain = document.parse(HEAD.format(devices=devices, body=body, os=os, end=end), QEMU)
    assign_aliases(domain)
    return domain


def argv_of(domain: Domain) -> list[str]:
    return build(domain, Context("/usr/bin/qemu", Path("/run/monitor"), lambda name: None))


def after(domain: Domain, option: str) -> list[str]:
    return [value for word, value in itertools.pairwise(argv_of(domain)) if word == option]


def specs(domain: Domain, option: str, start: str = "") -> list[dict[str, Any]]:
    found = [json.loads(text) for text in after(domain, option) if text.startswith("{")]
    return [spec for spec in found if str(next(iter(spec.values()))).startswith(start)]


@pytest.mark.parametrize(
    ("mode", "cache", "words"),
    [
        ("maximum", "emulate", ["l3-cache=on", "host-cache-info=off"]),
        ("maximum", "passthrough", ["host-cache-info=on", "l3-cache=off"]),
        ("maximum", "disable", ["host-cache-info=off", "l3-cache=off"]),
        ("custom", "emulate", ["l3-cache=on"]),
        ("custom", "disable", ["l3-cache=off"]),
    ],
)
def test_guest_is_told_of_a_cache(mode: str, cache: str, words: list[str]) -> None:
    level = " level='3'" if cache == "emulate" else ""
    model = "<model>qemu64</model>" if mode == "custom" else ""
    if (mode, cache) == ("maximum", "passthrough"):
        mode = "host-passthrough"
    body = f"<cpu mode='{mode}'>{model}<cache mode='{cache}'{level}/></cpu>"
    domain = machine(body=body.replace("host-passthrough", "maximum"))
    if mode == "host-passthrough" and domain.cpu is not None:
        domain.cpu.mode = mode
    assert [word for word in after(domain, "-cpu")[0].split(",") if "cache" in word] == words


def test_emulation_has_its_cache_and_management_mode_its_memory() -> None:
    management = "<smm state='on'><tseg unit='MiB'>48</tseg></smm>"
    body = f"<features><acpi/>{management}<tcg><tb-cache unit='MiB'>100</tb-cache></tcg></features>"
    assert after(machine(body=body), "-accel") == ["tcg,tb-size=100"]
    assert "mch.extended-tseg-mbytes=48" in after(machine(body=body), "-global")


def test_table_of_acpi_is_added() -> None:
    tables = "<acpi><table type='slic'>/a,b</table></acpi>"
    assert after(machine(os=tables, body="<features><acpi/></features>"), "-acpitable") == ["sig=SLIC,file=/a,,b"]


def test_time_zone_is_told_by_the_environment() -> None:
    domain = machine(body="<clock offset='timezone' timezone='Asia/Tokyo'/>")
    assert after(domain, "-rtc") == ["base=localtime"]
    assert environment(domain, Settings())["TZ"] == "Asia/Tokyo"


def test_environment_has_what_a_document_says_and_no_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("HOME", "/home/me")
    window = "<graphics type='sdl' display=':7' xauth='/x'/><audio id='1' type='sdl' driver='alsa'/>"
    end = "<qemu:commandline><qemu:env name='A' value='b c'/><qemu:env name='LC_ALL' value='de'/></qemu:commandline>"
    found = environment(machine(window, end=end), Settings())
    told = {"A": "b c", "LC_ALL": "de", "DISPLAY": ":7", "XAUTHORITY": "/x", "SDL_AUDIODRIVER": "alsa"}
    assert found.items() >= {**told, "HOME": "/home/me"}.items()
    assert "AWS_SECRET_ACCESS_KEY" not in found


def test_properties_of_a_device_are_overridden() -> None:
    given = [
        ("max-bytes", "unsigned", "7"),
        ("x-flag", "bool", "true"),
        ("x-text", "string", "t"),
        ("n", "signed", "-1"),
    ]
    inside = "".join(PROPERTY.format(*item) for item in given) + "<qemu:property name='period' type='remove'/>"
    domain = machine(RNG, end=OVERRIDE.format(inside, alias="rng0"))
    (spec,) = specs(domain, "-device", "virtio-rng")
    assert (spec["max-bytes"], spec["x-flag"], spec["x-text"], spec["n"]) == (7, True, "t", -1)
    assert "period" not in spec


@pytest.mark.parametrize(
    ("alias", "inside", "message"),
    [
        ("rng1", "", "there is no device with the alias 'rng1'"),
        ("rng0", PROPERTY.format("p", "unsigned", "-1"), "'-1' is no such value"),
        ("rng0", PROPERTY.format("p", "bool", "on"), "'on' is no such value"),
        ("rng0", PROPERTY.format("p", "signed", "x"), "'x' is no such value"),
    ],
)
def test_override_that_changes_nothing_or_nonsense_is_refused(alias: str, inside: str, message: str) -> None:
    with pytest.raises(VirtError, match=message):
        argv_of(machine(RNG, end=OVERRIDE.format(inside, alias=alias)))


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        ("none", []),
        ("omit", [{"deprecated-output": "hide"}]),
        ("reject", [{"deprecated-output": "hide", "deprecated-input": "reject"}]),
        ("crash", [{"deprecated-output": "hide", "deprecated-input": "crash"}]),
    ],
)
def test_qemu_is_told_what_to_do_with_what_it_gives_up(behavior: str, expected: list[dict[str, str]]) -> None:
    assert specs(machine(end=f"<qemu:deprecation behavior='{behavior}'/>"), "-compat") == expected


def test_ports_of_the_board() -> None:
    debug = "<serial type='null'><target type='isa-debug'/><address type='isa' iobase='0x402'/></serial>"
    forward = "<channel type='null'><target type='guestfwd' address='10.0.2.1' port='4600'/></channel>"
    domain = machine(f"{debug}<serial type='vc'/>{forward}")
    expected = {"driver": "isa-debugcon", "chardev": "charserial0", "id": "serial0", "iobase": 0x402}
    assert specs(domain, "-device", "isa-debugcon") == [expected]
    assert "vc,id=charserial1" in after(domain, "-chardev")
    strings = [{"str": "tcp:10.0.2.1:4600-chardev:charchannel0"}]
    assert specs(domain, "-netdev") == [{"type": "user", "guestfwd": strings, "id": "channel0"}]


def test_clipboard_and_bus_of_the_host() -> None:
    agent = "<source><clipboard copypaste='yes'/><mouse mode='server'/></source><target type='virtio' name='v'/>"
    bus = "<serial type='dbus'><source channel='org.qemu.console'/></serial><redirdev bus='usb' type='dbus'/>"
    found = after(
        machine(f"<channel type='qemu-vdagent'>{agent}</channel>{bus}<controller type='usb' model='qemu-xhci'/>"),
        "-chardev",
    )
    assert "qemu-vdagent,id=charchannel0,name=vdagent,clipboard=on,mouse=off" in found
    assert "dbus,id=charserial0,name=org.qemu.console" in found
    assert "dbus,id=charredir0,name=org.qemu.usbredir" in found


def test_events_of_a_device_of_the_host() -> None:
    source = "<source dev='/dev/input/event1' grab='all' grabToggle='alt-alt' repeat='on'/>"
    expected = {
        "id": "input0",
        "evdev": "/dev/input/event1",
        "repeat": True,
        "grab_all": True,
        "grab-toggle": "alt-alt",
    }
    domain = machine(f"<input type='evdev'>{source}</input>")
    assert specs(domain, "-object", "input-linux") == [{"qom-type": "input-linux", **expected}]


@pytest.mark.parametrize(
    ("screen", "expected"),
    [
        ("<graphics type='sdl' fullscreen='yes'><gl enable='yes'/></graphics>", "sdl,gl=on"),
        ("<graphics type='egl-headless'><gl rendernode='/r,1'/></graphics>", "egl-headless,rendernode=/r,,1"),
        (
            "<graphics type='dbus' p2p='yes'><audio id='1'/></graphics><audio id='1' type='none'/>",
            "dbus,p2p=on,audiodev=audio1",
        ),
        ("<graphics type='dbus' address='unix:path=/a,b'/>", "dbus,addr=unix:path=/a,,b"),
        ("", "none"),
    ],
)
def test_screens_that_are_no_servers(screen: str, expected: str) -> None:
    assert after(machine(screen), "-display") == [expected]
    assert ("-full-screen" in argv_of(machine(screen))) is ("fullscreen" in screen)


def test_render_node_is_chosen_and_missed(tmp_path: Path) -> None:
    domain = machine("<graphics type='egl-headless'/><graphics type='vnc'/>")
    with pytest.raises(VirtError, match="No DRM render nodes available"):
        choose_render_nodes(domain, tmp_path)
    for name in ("card0", "renderD129", "renderD128"):
        (tmp_path / name).touch()
    choose_render_nodes(domain, tmp_path)
    assert [screen.gl and screen.gl.rendernode for screen in domain.devices.graphics] == [
        f"{tmp_path}/renderD128",
        None,
    ]


@pytest.mark.parametrize(
    ("video", "driver"),
    [
        ("<model type='virtio'/>", "virtio-vga"),
        ("<model type='virtio'><acceleration accel3d='yes'/></model>", "virtio-vga-gl"),
        ("<driver name='vhostuser'/><model type='virtio'/>", "vhost-user-vga"),
    ],
)
def test_card_and_who_draws_for_it(video: str, driver: str) -> None:
    domain = machine(
        f"<video>{video}</video>", body="<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    )
    (spec,) = specs(domain, "-device", driver)
    assert spec["driver"] == driver
    if driver == "vhost-user-vga":
        assert spec["chardev"] == "chr-vu-video0"
        assert "socket,id=chr-vu-video0,path=/run/video0-gpu.sock" in after(domain, "-chardev")


def test_back_ends_of_sound_and_what_plays_on_them() -> None:
    fixed = "<settings frequency='44100' channels='2' format='s16'/>"
    devices = f"""<audio id='1' type='alsa'><input dev='/d' mixingEngine='yes' fixedSettings='yes' voices='2'
    bufferLength='100'>{fixed}</input></audio><audio id='2' type='pulseaudio' serverName='s' timerPeriod='40'>
    <output name='n' streamName='t' latency='5'/></audio><audio id='3' type='oss' tryMMap='yes' exclusive='no'
    dspPolicy='3'/>
    <sound model='pcspk'><audio id='2'/></sound><sound model='usb' multichannel='yes'/>"""
    domain = machine(devices)
    once = {"mixing-engine": True, "fixed-settings": True, "voices": 2, "buffer-length": 100, "frequency": 44100}
    out = {"name": "n", "stream-name": "t", "latency": 5}
    assert specs(domain, "-audiodev") == [
        {"id": "audio1", "driver": "alsa", "in": {**once, "channels": 2, "format": "s16", "dev": "/d"}},
        {"id": "audio2", "driver": "pa", "timer-period": 40, "server": "s", "out": out},
        {"id": "audio3", "driver": "oss", "try-mmap": True, "exclusive": False, "dsp-policy": 3},
    ]  # fmt: skip
    assert "pcspk-audiodev=audio2" in after(domain, "-machine")[0]
    (card,) = specs(domain, "-device", "usb-audio")
    assert (card["multi"], card["audiodev"]) == (True, "audio1")
