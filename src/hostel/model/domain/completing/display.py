"""What screens get that their document does not say: models, memory, where they listen."""

from __future__ import annotations

import contextlib
import datetime
import re
from typing import Final

from hostel.errors import ErrorCode, ModelError
from hostel.model.domain.devices.graphics import Graphics, GraphicsType, Listen
from hostel.model.domain.devices.video import Video, VideoModel
from hostel.model.domain.domain import Domain, DomainType
from hostel.model.domain.platform import PPC64, S390, Board, Platform, arch_of, board_of

_MOMENT: Final = re.compile(r"([0-9]{1,4})-([0-9]{1,2})-([0-9]{1,2})T([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})", re.ASCII)

_VIDEO_MEMORY: Final = {"vga": 16384, "cirrus": 16384, "vmvga": 16384, "bochs": 16384, "xen": 4096, "qxl": 65536}


def forget_socket(graphics: Graphics, platform: Platform) -> None:
    """Listen at an address where the document has a socket that starting a machine once made up."""
    if graphics.type != GraphicsType.VNC:
        return
    directory = f"{platform.state_directory}/"
    if graphics.socket is not None and graphics.socket.startswith(directory):
        graphics.socket = None
    for listen in graphics.listens:
        if listen.type == "socket" and listen.socket is not None and listen.socket.startswith(directory):
            listen.type, listen.socket = "address", None


def complete_graphics(domain: Domain, graphics: Graphics, *, is_live: bool) -> None:
    """Say where a screen listens, and at which ports; one that is seen now keeps those that it got."""
    if graphics.type not in (GraphicsType.VNC, GraphicsType.SPICE, GraphicsType.RDP):
        return
    complete_password(graphics)
    listens, kind = graphics.listens, graphics.type
    named = next((listen.address for listen in listens if listen.type == "address" and listen.address), None)
    if named is not None and graphics.listen and named != graphics.listen:
        reason = (
            f"graphics 'listen' attribute '{graphics.listen}' must match 'address' attribute of first listen element "
            f"(found '{named}')"
        )
        raise ModelError("/domain/devices/graphics/@listen", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    first_socket = listens[0].socket if listens and listens[0].type == "socket" else None
    if first_socket is not None and graphics.socket and first_socket != graphics.socket:
        reason = (
            f"graphics 'socket' attribute '{graphics.socket}' must match 'socket' attribute of first listen element "
            f"(found '{first_socket}')"
        )
        raise ModelError("/domain/devices/graphics/@socket", reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    if not listens:
        if kind == GraphicsType.VNC and graphics.socket is not None:
            listens.append(Listen(type="socket", socket=graphics.socket))
        else:
            listens.append(Listen(type="address", address=graphics.listen or None))
    first = listens[0]
    if kind == GraphicsType.VNC and graphics.socket is not None and first.type in ("address", "network"):
        first = listens[0] = Listen(type="socket", socket=graphics.socket)
    if first.type == "address" and first.address is None:
        first.address = graphics.listen or None
    if first.type == "socket" and first.socket is None:
        first.socket = graphics.socket
    if kind == GraphicsType.SPICE:
        _complete_spice(graphics, first, is_live=is_live)
    elif kind == GraphicsType.VNC:
        graphics.autoport = graphics.is_automatic
        if graphics.autoport and not (is_live and domain.id is not None and graphics.port):
            graphics.port = -1
        if first.type not in ("address", "network"):
            graphics.port = graphics.autoport = graphics.websocket = None
        if graphics.websocket == 0:
            graphics.websocket = None
    graphics.socket = first.socket if kind == GraphicsType.VNC else None
    graphics.listen = first.address


def complete_password(graphics: Graphics) -> None:
    """Read until when the password holds; without one nothing of it is kept (``virDomainGraphicsAuthDefParseXML``)."""
    if graphics.passwd is None or graphics.type == GraphicsType.RDP:
        graphics.passwd_valid_to = graphics.connected = None
    if graphics.passwd_valid_to is not None:
        moment = datetime.datetime.fromtimestamp(valid_until(graphics) or 0, datetime.UTC)
        graphics.passwd_valid_to = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if graphics.type == GraphicsType.VNC and graphics.connected not in (None, "keep"):
        reason = "VNC supports connected='keep' only"
        raise ModelError("/domain/devices/graphics/@connected", reason, code=ErrorCode.CONFIG_UNSUPPORTED)


def valid_until(graphics: Graphics) -> int | None:
    """When the password ends, in seconds since 1970; None where it does not.

    Raises:
        ModelError: it is no time.
    """
    written = graphics.passwd_valid_to
    if written is None:
        return None
    fields = _MOMENT.fullmatch(written)
    with contextlib.suppress(ValueError):
        if fields is not None:
            year, month, day, hour, minute, second = (int(field) for field in fields.groups())
            return int(datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC).timestamp())
    reason = f"cannot parse password validity time '{written}', expect YYYY-MM-DDTHH:MM:SS"
    raise ModelError("/domain/devices/graphics/@passwdValidTo", reason, code=ErrorCode.INTERNAL_ERROR)


def _complete_spice(graphics: Graphics, first: Listen, *, is_live: bool) -> None:
    if graphics.port == -1 and graphics.tls_port == -1:
        graphics.autoport = True
    ports = (graphics.port, graphics.tls_port)
    if first.type == "address" and not graphics.autoport and all(port in (None, 0) for port in ports):
        first.type, first.address = "none", None
    if graphics.autoport and not is_live:
        graphics.port = graphics.tls_port = None
    if first.type in ("address", "network"):
        graphics.autoport = bool(graphics.autoport)
    else:
        graphics.port = graphics.tls_port = graphics.autoport = None


def order_videos(domain: Domain) -> None:
    """Put the screen first that says that it is the primary one.

    Raises:
        ModelError: more than one says so.
    """
    primaries = [video for video in domain.devices.videos if video.model is not None and video.model.primary]
    if len(primaries) > 1:
        reason = "Only one primary video device is supported"
        raise ModelError(domain.devices.path(primaries[1]), reason, code=ErrorCode.CONFIG_UNSUPPORTED)
    for video in primaries:
        domain.devices.videos.remove(video)
        domain.devices.videos.insert(0, video)


def _default_model(domain: Domain, platform: Platform) -> str | None:
    if arch_of(domain) in PPC64:
        return "vga"
    if arch_of(domain) in S390 or board_of(domain) in (Board.ARM_VIRT, Board.RISCV_VIRT):
        return "virtio"
    return next((model for flag, model in (("cirrus-vga", "cirrus"), ("VGA", "vga")) if platform.has(flag)), None)


def complete_video(domain: Domain, video: Video, platform: Platform, *, is_first: bool) -> None:
    """Give a screen its model and memory; the first is the primary one."""
    model = video.model = video.model or VideoModel(type="default")
    if model.type == "none" and is_first:
        video.model, video.address, video.driver = VideoModel(type="none"), None, None
        return
    if model.type == "default" and platform.is_qemu:
        model.type = _default_model(domain, platform) or "default"
    elif model.type == "default" and domain.type == DomainType.TEST:
        model.type = "cirrus"
    if model.heads is None:
        model.heads = 1
    memory = _VIDEO_MEMORY.get(model.type)
    if model.type in ("vga", "cirrus", "vmvga"):
        memory = {DomainType.VBOX: 8192, DomainType.VMWARE: 4096}.get(domain.type, memory)
    if model.type == "qxl":
        model.ram = _power_of_two(model.ram or memory)
        model.vgamem = model.vgamem or (16384 if platform.is_qemu else None)
    model.vram = _power_of_two(model.vram or memory)
    if is_first:
        model.primary = True
    elif model.primary is False:
        model.primary = None


def _power_of_two(value: int | None) -> int | None:
    return None if value is None else 1 << (value - 1).bit_length()
