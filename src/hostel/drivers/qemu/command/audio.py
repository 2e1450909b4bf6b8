"""Back ends of the host's that are heard, and the sound cards on them (``qemuBuildAudioCommandLine``)."""

from __future__ import annotations

from typing import Any, Final

from hostel.drivers.qemu.command.context import alias_of, option
from hostel.drivers.qemu.command.place import place
from hostel.drivers.qemu.document import unsupported
from hostel.model.domain.devices.sound import Audio, AudioDirection, Sound
from hostel.model.domain.domain import Domain

# What QEMU calls the back ends that it calls otherwise.
_DRIVERS: Final = {"pulseaudio": "pa", "file": "wav"}
# What each back end has for one direction besides what all have: QEMU's words, and ours.
_OF_DIRECTIONS: Final[dict[str, dict[str, str]]] = {
    "alsa": {"dev": "dev"},
    "coreaudio": {"buffer-count": "buffer_count"},
    "jack": {
        "server-name": "server_name", "client-name": "client_name", "connect-ports": "connect_ports",
        "exact-name": "exact_name",
    },
    "oss": {"dev": "dev", "buffer-count": "buffer_count", "try-poll": "try_poll"},
    "pulseaudio": {"name": "name", "stream-name": "stream_name", "latency": "latency"},
    "sdl": {"buffer-count": "buffer_count"},
}  # fmt: skip
_OF_BOTH: Final[dict[str, dict[str, str]]] = {
    "oss": {"try-mmap": "try_mmap", "exclusive": "exclusive", "dsp-policy": "dsp_policy"},
    "pulseaudio": {"server": "server_name"},
    "file": {"path": "path"},
}
_SOUND: Final = {
    "ac97": "AC97",
    "es1370": "ES1370",
    "sb16": "sb16",
    "usb": "usb-audio",
    "ich6": "intel-hda",
    "ich9": "ich9-intel-hda",
}
_CODECS: Final = {"duplex": "hda-duplex", "micro": "hda-micro", "output": "hda-output"}


def number_of(domain: Domain, wanted: int | None) -> int | None:
    """The number of the back end that a device uses; None when the document has none."""
    if wanted is not None:
        return wanted
    return domain.devices.audios[0].id if domain.devices.audios else None


def backends(domain: Domain) -> list[str]:
    """The back ends, before what plays on them."""
    argv: list[str] = []
    for backend in domain.devices.audios:
        name, own = f"audio{backend.id}", _named(backend, _OF_BOTH.get(backend.type, {}))
        both = {"id": name, "driver": _DRIVERS.get(backend.type, backend.type), "timer-period": backend.timer_period}
        ways = {"in": _direction(backend, backend.input), "out": _direction(backend, backend.output)}
        argv += option("-audiodev", {**both, **own, **ways})
    return argv


def _named(holder: Audio | AudioDirection, names: dict[str, str]) -> dict[str, Any]:
    given = {name: getattr(holder, field) for name, field in names.items()}
    return {name: value for name, value in given.items() if value is not None}


def _direction(backend: Audio, direction: AudioDirection | None) -> dict[str, Any] | None:
    """One direction's properties; None where nothing is said of it."""
    if direction is None:
        return None
    found: dict[str, Any] = {
        "mixing-engine": direction.mixing_engine,
        "fixed-settings": direction.fixed_settings,
        "voices": direction.voices,
        "buffer-length": direction.buffer_length,
    }
    if direction.fixed_settings and (fixed := direction.settings) is not None:
        found |= {"frequency": fixed.frequency, "channels": fixed.channels, "format": fixed.sample_format}
    found |= _named(direction, _OF_DIRECTIONS.get(backend.type, {}))
    return {name: value for name, value in found.items() if value is not None} or None


def cards(domain: Domain) -> list[str]:
    """Sound cards, with the codecs of those that have them.

    Raises:
        VirtError: ``CONFIG_UNSUPPORTED``: this driver has no such card.
    """
    argv: list[str] = []
    for sound in domain.devices.sounds:
        name, number = alias_of(sound), number_of(domain, sound.audio)
        if sound.model == "pcspk":
            continue  # a property of the board
        driver = _SOUND.get(sound.model)
        if driver is None:
            raise unsupported(f"sound model='{sound.model}'; write one of pcspk, {', '.join(_SOUND)}")
        has_codecs = sound.model in ("ich6", "ich9")
        spec = {
            "driver": driver,
            "id": name,
            "multi": sound.multichannel if sound.model == "usb" else None,
            "audiodev": None if has_codecs or number is None else f"audio{number}",
        }
        argv += option("-device", {**spec, **place(domain, sound)})
        if has_codecs:
            argv += _codecs(sound, name, number)
    return argv


def speaker(domain: Domain) -> str | None:
    """The back end of the board's own speaker; None where the document has none."""
    for sound in domain.devices.sounds:
        if sound.model == "pcspk":
            number = number_of(domain, sound.audio)
            return None if number is None else f"audio{number}"
    return None


def _codecs(sound: Sound, name: str, number: int | None) -> list[str]:
    argv: list[str] = []
    for index, codec in enumerate(sound.codecs or ["duplex"]):
        spec = {"driver": _CODECS[codec], "id": f"{name}-codec{index}", "bus": f"{name}.0", "cad": index}
        argv += option("-device", {**spec, "audiodev": None if number is None else f"audio{number}"})
    return argv
