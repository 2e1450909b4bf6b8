"""A guest's character devices as streams: pseudo terminals and channels; one client at a time unless forced."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import termios
import time
import tty
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from hostel.drivers.base import DomainRef
from hostel.drivers.fault import fault
from hostel.drivers.qemu.calls import Calls
from hostel.drivers.qemu.confinement.selinux import kernel
from hostel.drivers.qemu.machines import invalid
from hostel.drivers.qemu.running import Running
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.domain.devices.character import CharacterBackend, CharacterType
from hostel.net.descriptor import Descriptor

_WRITE_SECONDS: Final = 30.0
_GLANCE: Final = 0.2  # seconds after which who writes looks whether it is detached
_CONNECT_SECONDS: Final = 5.0  # QEMU takes one client of a channel at a time


class CharacterStream(ABC):
    """What holds a character device of a guest, and a lock file for as long as it is attached."""

    def __init__(self, path: str, lock: Path, *, force: bool, kind: str) -> None:
        """Attach.

        Args:
            path: of the device on this host.
            lock: a file for this device alone.
            force: attach beside whoever is attached already.
            kind: of the device, in libvirt's words.

        Raises:
            VirtError: somebody else is attached and ``force`` is false, or the device cannot be opened.
        """
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not force:
                    message = f"operation failed: Active {kind} exists for this domain"
                    raise VirtError(ErrorCode.OPERATION_FAILED, message, domain=ErrorDomain.QEMU) from None
            try:
                # One thread reads, another writes, and a third may detach.
                self._device = Descriptor(self._open(path), held)
            except OSError as error:
                message = f"cannot open {kind.partition(' ')[0]} '{path}': {error.strerror}"
                raise VirtError(ErrorCode.SYSTEM_ERROR, message, domain=ErrorDomain.QEMU) from error
        except BaseException:
            os.close(held)
            raise

    @abstractmethod
    def _open(self, path: str) -> int:
        """A descriptor that does not block.

        Raises:
            OSError: it cannot be opened.
        """

    def read(self, length: int, timeout: float) -> bytes | None:
        """Read up to ``length`` bytes; ``b""`` at the end, None when nothing came in ``timeout`` seconds."""
        poll = select.poll()
        try:
            with self._device.use() as device:
                poll.register(device, select.POLLIN)
                return os.read(device, length) if poll.poll(timeout * 1000) else None
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO or self._device.is_closed:
                return b""
            raise

    def write(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            TimeoutError: the guest took nothing for 30 seconds.
            OSError: EBADF: it is detached.
        """
        deadline = time.monotonic() + _WRITE_SECONDS
        poll = select.poll()
        with self._device.use() as device:
            poll.register(device, select.POLLOUT)
            while data:
                if self._device.is_closed:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                if poll.poll(_GLANCE * 1000):
                    with contextlib.suppress(BlockingIOError):
                        data = data[os.write(device, data) :]
                if data and time.monotonic() >= deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "the guest does not read its console")

    def close(self) -> None:
        """Detach, once nobody reads or writes any more; may be called twice, and by any thread."""
        self._device.close()


class PtyStream(CharacterStream):
    """An open pseudo terminal."""

    def _open(self, path: str) -> int:
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(termios.error):
            tty.setraw(terminal)
        return terminal


class ChannelStream(CharacterStream):
    """A channel's socket, on which QEMU listens."""

    def _open(self, path: str) -> int:
        with kernel.sockets_as(kernel.context_for_sockets(Path(path).parent)):
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with channel:
            channel.settimeout(_CONNECT_SECONDS)
            channel.connect(path)
            channel.setblocking(False)
            return channel.detach()


class CharacterCalls(Calls):
    """Consoles and channels; see :class:`hostel.drivers.base.HypervisorDriver` and :class:`ChannelDriver`."""

    def domain_open_console(self, domain: DomainRef, device: str | None = None, *, force: bool = False) -> PtyStream:
        """Attach to a serial port or console by alias; the first one when None."""
        with self._running(domain, moving=True) as machine:
            devices = machine.domain.devices
            ends: list[CharacterBackend] = [*devices.consoles, *devices.serials]
            for end in ends:
                if device in (None, end.alias):
                    path = end.source.path if end.source is not None else None
                    if end.type != CharacterType.PTY or not path:
                        raise invalid(f"character device {end.alias} is not using a PTY")
                    return PtyStream(path, _lock(machine, path), force=force, kind="console session")
        raise _missing(f"cannot find character device {device or '(null)'}")

    def domain_open_channel(self, domain: DomainRef, name: str | None = None, *, force: bool = False) -> ChannelStream:
        """Attach to a channel by alias or the name of its port; the first one when None."""
        with self._running(domain, moving=True) as machine:
            for channel in machine.domain.devices.channels:
                if name in (None, channel.alias, channel.target.name if channel.target is not None else None):
                    path = channel.source.path if channel.source is not None else None
                    if channel.type != CharacterType.UNIX or not path:
                        raise _missing(f"channel {name or channel.alias} is not using a UNIX socket")
                    return ChannelStream(path, _lock(machine, path), force=force, kind="channel stream")
        raise _missing(f"cannot find channel {name or '(null)'}")


def _lock(machine: Running, path: str) -> Path:
    return machine.run / f"console-{path.replace('/', '-')}"


def _missing(what: str) -> VirtError:
    return fault(ErrorCode.INTERNAL_ERROR, what, ErrorDomain.QEMU)
