"""``<graphics>`` (``virDomainGraphicsDefFormat``)."""

from __future__ import annotations

import enum

from hostel.codec.xml import ON_OFF, YES_NO, Element, attr, child, children, choice, enumeration, integer, setting


class GraphicsType(enum.StrEnum):
    """``virDomainGraphicsType``."""

    SDL = "sdl"
    VNC = "vnc"
    RDP = "rdp"
    DESKTOP = "desktop"
    SPICE = "spice"
    EGL_HEADLESS = "egl-headless"
    DBUS = "dbus"


class Listen(Element, tag="listen"):
    """Where a server listens."""

    type: str = attr(choice("none", "address", "network", "socket"))
    address: str | None = attr(default=None)
    network: str | None = attr(default=None)
    socket: str | None = attr(default=None)


class SpiceChannel(Element, tag="channel"):
    """Whether one of Spice's channels is encrypted."""

    name: str = attr(choice("main", "display", "inputs", "cursor", "playback", "record", "smartcard", "usbredir"))
    mode: str = attr(choice("any", "secure", "insecure"))


class Gl(Element, tag="gl", drop_empty=True):
    """OpenGL, and on which device of the host."""

    enable: bool | None = attr(YES_NO, default=None)
    rendernode: str | None = attr(default=None)


class Graphics(Element, tag="graphics"):
    """A server for the guest's screen."""

    type: GraphicsType = attr(enumeration(GraphicsType))
    socket: str | None = attr(default=None)
    port: int | None = attr(integer(-1, 65535), default=None)
    tls_port: int | None = attr(integer(-1, 65535), name="tlsPort", default=None)
    autoport: bool | None = attr(YES_NO, default=None)
    websocket: int | None = attr(integer(-1, 65535), default=None)
    listen: str | None = attr(default=None)
    keymap: str | None = attr(default=None)
    share_policy: str | None = attr(
        choice("allow-exclusive", "force-shared", "ignore"), name="sharePolicy", default=None
    )
    power_control: bool | None = attr(YES_NO, name="powerControl", default=None)
    default_mode: str | None = attr(choice("any", "secure", "insecure"), name="defaultMode", default=None)
    display: str | None = attr(default=None)
    xauth: str | None = attr(default=None)
    p2p: bool | None = attr(YES_NO, default=None)
    address: str | None = attr(default=None)
    fullscreen: bool | None = attr(YES_NO, default=None)
    replace_user: bool | None = attr(YES_NO, name="replaceUser", default=None)
    multi_user: bool | None = attr(YES_NO, name="multiUser", default=None)
    passwd: str | None = attr(default=None)
    passwd_valid_to: str | None = attr(name="passwdValidTo", default=None)
    connected: str | None = attr(choice("fail", "disconnect", "keep"), default=None)
    listens: list[Listen] = children(Listen, factory=list)
    channels: list[SpiceChannel] = children(SpiceChannel, factory=list)
    image_compression: str | None = setting(
        choice("auto_glz", "auto_lz", "quic", "glz", "lz", "off"), tag="image", name="compression", default=None
    )
    jpeg_compression: str | None = setting(
        choice("auto", "never", "always"), tag="jpeg", name="compression", default=None
    )
    zlib_compression: str | None = setting(
        choice("auto", "never", "always"), tag="zlib", name="compression", default=None
    )
    playback_compression: bool | None = setting(ON_OFF, tag="playback", name="compression", default=None)
    streaming: str | None = setting(choice("filter", "all", "off"), name="mode", default=None)
    mouse: str | None = setting(choice("server", "client"), name="mode", default=None)
    clipboard: bool | None = setting(YES_NO, name="copypaste", default=None)
    file_transfer: bool | None = setting(YES_NO, tag="filetransfer", name="enable", default=None)
    gl: Gl | None = child(Gl, default=None)
    audio: int | None = setting(integer(1), name="id", default=None)

    @property
    def is_automatic(self) -> bool:
        """Whether the port is chosen when the domain starts."""
        return self.autoport is True or (self.autoport is None and self.port in (None, -1))
