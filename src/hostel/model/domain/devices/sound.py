"""``<sound>`` cards, the ``<audio>`` they play on (``virDomainSoundDefFormat``, ``virDomainAudioDefFormat``)."""

from __future__ import annotations

from hostel.codec.xml import YES_NO, Element, attr, child, choice, integer, setting, settings
from hostel.model.domain.devices.device import Device


class Sound(Device, tag="sound"):
    """A sound card."""

    model: str = attr(choice("sb16", "es1370", "pcspk", "ac97", "ich6", "ich9", "usb", "ich7"))
    multichannel: bool | None = attr(YES_NO, default=None)
    codecs: list[str] = settings(choice("duplex", "micro", "output"), tag="codec", name="type", factory=list)
    audio: int | None = setting(integer(1), name="id", default=None)


class AudioSettings(Element, tag="settings"):
    """Sample rate, channels and sample format."""

    frequency: int | None = attr(integer(1), default=None)
    channels: int | None = attr(integer(1), default=None)
    sample_format: str | None = attr(choice("u8", "s8", "u16", "s16", "u32", "s32", "f32"), name="format", default=None)


class AudioDirection(Element, drop_empty=True):
    """One direction of sound; which of the latter attributes count depends on the back end."""

    mixing_engine: bool | None = attr(YES_NO, name="mixingEngine", default=None)
    fixed_settings: bool | None = attr(YES_NO, name="fixedSettings", default=None)
    voices: int | None = attr(integer(1), default=None)
    buffer_length: int | None = attr(integer(1), name="bufferLength", default=None)
    server_name: str | None = attr(name="serverName", default=None)
    client_name: str | None = attr(name="clientName", default=None)
    connect_ports: str | None = attr(name="connectPorts", default=None)
    exact_name: bool | None = attr(YES_NO, name="exactName", default=None)
    dev: str | None = attr(default=None)
    buffer_count: int | None = attr(integer(), name="bufferCount", default=None)
    try_poll: bool | None = attr(YES_NO, name="tryPoll", default=None)
    name: str | None = attr(default=None)
    stream_name: str | None = attr(name="streamName", default=None)
    latency: int | None = attr(integer(), default=None)
    settings: AudioSettings | None = child(AudioSettings, default=None)


class AudioInput(AudioDirection, tag="input", drop_empty=True):
    """From the host."""


class AudioOutput(AudioDirection, tag="output", drop_empty=True):
    """To the host."""


class Audio(Element, tag="audio"):
    """An audio back end of the host."""

    id: int = attr(integer(1))
    type: str = attr(choice("none", "alsa", "coreaudio", "jack", "oss", "pulseaudio", "sdl", "spice", "file", "dbus"))
    timer_period: int | None = attr(integer(), name="timerPeriod", default=None)
    driver: str | None = attr(choice("esd", "alsa", "arts", "pulseaudio"), default=None)
    path: str | None = attr(default=None)
    server_name: str | None = attr(name="serverName", default=None)
    try_mmap: bool | None = attr(YES_NO, name="tryMMap", default=None)
    exclusive: bool | None = attr(YES_NO, default=None)
    dsp_policy: int | None = attr(integer(), name="dspPolicy", default=None)
    input: AudioInput | None = child(AudioInput, default=None)
    output: AudioOutput | None = child(AudioOutput, default=None)
