"""Calls that open a stream."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from hostel.daemon.access import api_name
from hostel.daemon.machine import domain_of, driver_of
from hostel.daemon.stream import Console, Download, Upload
from hostel.drivers.adapters import check_flags
from hostel.drivers.base import Hole, VolumeRef
from hostel.wire.rpc.connection import Call

if TYPE_CHECKING:
    from hostel.daemon.client import Client

_SPARSE: Final = 1
FORCE, _SAFE = 1, 2  # virDomainConsoleFlags; the first is also virDomainChannelFlags'
# What attaches to a character device, and the flags that it takes.
ATTACHING: Final = {"domain_open_console": FORCE | _SAFE, "domain_open_channel": FORCE}


def _download(client: Client, call: Call) -> Sequence[Any] | None:
    volume, offset, length, flags = call.arguments
    check_flags(flags, _SPARSE, "virStorageVolDownload")
    assert client.host is not None
    driver = client.host.drivers.storage
    source = driver.storage_vol_download(VolumeRef(*volume), offset, length, sparse=bool(flags & _SPARSE))
    # Errors of opening come with the first piece, and belong to the call.
    first = next(source, None)
    stream = Download(client, client.frames(call), first, source)
    _begin(client, call, stream, stream.run)
    return None


def _begin(client: Client, call: Call, stream: Any, run: Callable[[], None], result: Sequence[Any] = ()) -> None:
    def answered_first() -> None:
        client.accepted(call, result)
        run()

    client.open_stream(call, stream, answered_first)


def _upload(client: Client, call: Call) -> Sequence[Any] | None:
    volume, offset, length, flags = call.arguments
    check_flags(flags, _SPARSE, "virStorageVolUpload")
    assert client.host is not None
    driver = client.host.drivers.storage

    def take(pieces: Iterator[bytes | memoryview | Hole]) -> None:
        driver.storage_vol_upload(VolumeRef(*volume), pieces, offset, length)

    stream = Upload(
        client,
        client.frames(call),
        take,
        functools.partial(client.accepted, call),
        functools.partial(client.refused, call),
        length,
    )
    client.open_stream(call, stream, stream.run)
    return None


def _screenshot(client: Client, call: Call) -> Sequence[Any] | None:
    domain, screen, flags = call.arguments
    check_flags(flags, 0, "virDomainScreenshot")
    picture = driver_of(client, call, "domain_screenshot").domain_screenshot(domain_of(domain), screen)
    stream = Download(client, client.frames(call), memoryview(picture.content), iter(()))
    _begin(client, call, stream, stream.run, (picture.mime,))
    return None


def _character(method: str) -> Callable[[Client, Call], Sequence[Any] | None]:
    def attach(client: Client, call: Call) -> Sequence[Any] | None:
        domain, device, flags = call.arguments
        check_flags(flags, ATTACHING[method], api_name(method))
        driver = driver_of(client, call, method)
        attached = getattr(driver, method)(domain_of(domain), device, force=bool(flags & FORCE))
        stream = Console(client, client.frames(call), attached)
        try:
            _begin(client, call, stream, stream.run)
        except BaseException:
            attached.close()
            raise
        return None

    return attach


ANSWERS: Final[dict[str, Callable[[Client, Call], Sequence[Any] | None]]] = {
    "storage_vol_download": _download,
    "storage_vol_upload": _upload,
    **{method: _character(method) for method in ATTACHING},
    "domain_screenshot": _screenshot,
}
