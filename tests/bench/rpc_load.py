"""Runs under the Python that has libvirt's binding: ``rpc_load.py URI WHAT SECONDS`` prints a rate per second."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import libvirt

DOMAIN = "<domain type='test'><name>d{}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
SIZE = 256 << 20


def rate(call: Callable[[], object], seconds: float, batch: int = 20) -> float:
    """Calls a second."""
    call()
    done, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        for _ in range(batch):
            call()
        done += batch
    return done / taken


def transfer(connection: libvirt.virConnect, folder: str, what: str, seconds: float) -> float:
    """Bytes a second of a volume's stream."""
    os.makedirs(folder, exist_ok=True)
    os.chmod(folder, 0o777)
    xml = f"<pool type='dir'><name>bench</name><target><path>{folder}</path></target></pool>"
    pool = connection.storagePoolCreateXML(xml)
    volume = pool.createXML(f"<volume><name>v</name><capacity>{SIZE}</capacity><allocation>0</allocation></volume>")
    piece = os.urandom(1 << 20)
    best = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end or not best:
        start = time.perf_counter()
        for way in ("upload", what):
            stream = connection.newStream()
            start = time.perf_counter()
            if way == "upload":
                left = [SIZE]

                def give(_stream: object, size: int, _: object, left: list[int] = left) -> bytes:
                    taken = min(size, left[0], len(piece))
                    left[0] -= taken
                    return piece[:taken]

                volume.upload(stream, 0, 0)
                stream.sendAll(give, None)
            else:
                volume.download(stream, 0, 0)
                stream.recvAll(lambda _stream, data, _: len(data), None)
            stream.finish()
        best = max(best, SIZE / (time.perf_counter() - start))
    volume.delete()
    pool.destroy()
    return best


def main(uri: str, what: str, seconds: float, folder: str) -> float:
    libvirt.registerErrorHandler(lambda context, error: None, None)
    connection = libvirt.open(uri)
    if what in ("upload", "download"):
        return transfer(connection, folder, what, seconds)
    if what == "open and close":
        return rate(lambda: libvirt.open(uri).close(), seconds)
    if what == "list of 1,000":
        for number in range(999):
            connection.defineXML(DOMAIN.format(number))
        return rate(connection.listAllDomains, seconds, 1)
    domain = connection.lookupByName("test")
    calls = {
        "library version": connection.getLibVersion,
        "host name": connection.getHostname,
        "lookup": lambda: connection.lookupByName("test"),
        "info": domain.info,
    }
    return rate(calls[what], seconds)


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]))
