"""Every error Hostel raises on purpose.

::

    HostelError
    +-- BlockError(HostelError, OSError)   always has an errno: NBD, virtio and FUSE map from it alone
    |   +-- UnknownFormat       no driver, or the bytes are of no format we know
    |   +-- InvalidImage        bytes malformed
    |   +-- CorruptImage        metadata contradicts itself
    |   +-- UnsupportedFeature  a known or unknown feature that we do not implement
    |   +-- ReadOnly            a write to something opened for reading
    |   +-- OutOfRange          offset or length beyond the end
    |   +-- NoSpace             ENOSPC, on the host or in the format
    |   +-- ImageLocked         another process holds the image
    |   +-- UntrustedReference  an untrusted image names something outside itself
    |   +-- Mismatch            copies that should be equal are not
    +-- NetworkError(HostelError, OSError)   a peer cannot be reached, or is not who it should be; has an errno
    +-- ProtocolError           wire protocols
    |   +-- LocalProtocolError  our misuse
    |   +-- RemoteProtocolError the peer's misuse
    +-- QmpError                QEMU's answer to a QMP command
    +-- VirtError               libvirt's error struct: code, domain, level, message
    +-- ModelError              the shape or a rule of an XML document, with the element's path
    +-- UsageError              command line misuse

Errors of the host's own system calls stay :class:`OSError`: they already carry an errno. The text of an error is
complete on its own; each is translated once, at its boundary (``cli``, the daemon, an export).
"""

from __future__ import annotations

import errno as _errno
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hostel.errors.machine import ErrorCode as ErrorCode
    from hostel.errors.machine import ErrorDomain as ErrorDomain
    from hostel.errors.machine import ErrorLevel as ErrorLevel
    from hostel.errors.machine import ModelError as ModelError
    from hostel.errors.machine import VirtError as VirtError

_OF_MACHINES: Final = frozenset({"ErrorCode", "ErrorDomain", "ErrorLevel", "ModelError", "VirtError"})


class HostelError(Exception):
    """The root of every error that Hostel raises on purpose."""


class BlockError(HostelError, OSError):
    """An error of the block layer; ``errno`` is always set and ``str()`` is the message alone."""

    default_errno = _errno.EIO

    def __init__(self, message: str, *, errno: int | None = None, hint: str | None = None) -> None:
        OSError.__init__(self, errno if errno is not None else self.default_errno, message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UnknownFormat(BlockError):
    """No driver has this name, or the image's bytes are of no known format."""

    default_errno = _errno.EINVAL


class InvalidImage(BlockError):
    """The image's bytes are malformed: a header, a table or a name is out of its limits."""

    default_errno = _errno.EINVAL


class CorruptImage(BlockError):
    """The image's metadata contradicts itself."""

    default_errno = _errno.EIO


class UnsupportedFeature(BlockError):
    """The image, or the caller, asks for something that is not implemented."""

    default_errno = _errno.ENOTSUP


class ReadOnly(BlockError):
    """A write to a node that was opened for reading only."""

    default_errno = _errno.EROFS


class OutOfRange(BlockError):
    """An offset or a length lies outside the image."""

    default_errno = _errno.EINVAL


class NoSpace(BlockError):
    """There is no room left, on the host or within the limits of the format."""

    default_errno = _errno.ENOSPC


class ImageLocked(BlockError):
    """Another process uses the image in a way that excludes ours; ``hint`` says who where that is known."""

    default_errno = _errno.EAGAIN


class Reentered(BlockError):
    """A signal handler uses what its own thread is in the middle of changing; nothing was done."""

    default_errno = _errno.EDEADLK

    @classmethod
    def of(cls, filename: str) -> Reentered:
        """What is raised to a signal handler that uses an image of this name."""
        return cls(f"A signal handler cannot use '{filename}', which its own thread is in the middle of using")


class UntrustedReference(BlockError):
    """An image opened as untrusted names a file or an address outside itself."""

    default_errno = _errno.EACCES


class Mismatch(BlockError):
    """Copies of one image that should be equal are not; the message says where."""


class NetworkError(HostelError, OSError):
    """A peer cannot be reached, an address not listened on, or TLS not agreed; ``str()`` is the message alone."""

    def __init__(self, message: str, *, errno: int | None = None, hint: str | None = None) -> None:
        OSError.__init__(self, errno if errno is not None else _errno.EIO, message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ProtocolError(HostelError):
    """A wire protocol was broken."""


class LocalProtocolError(ProtocolError):
    """We used a protocol machine against its state."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what its state forbids."""


class QmpError(HostelError):
    """QEMU answered a QMP command with an error, or the monitor could not be reached.

    Attributes:
        error_class: QEMU's class, such as ``GenericError`` or ``DeviceNotFound``; ``Timeout`` and ``Disconnected``
            are ours.
        desc: QEMU's description.
    """

    def __init__(self, error_class: str, desc: str) -> None:
        super().__init__(desc)
        self.error_class = error_class
        self.desc = desc


class UsageError(HostelError):
    """The command line is wrong; the message says how to call it."""


def __getattr__(name: str) -> Any:
    """What only machines need is loaded by whoever asks for it: a run of ``qemu-img`` is too short to make enums."""
    if name in _OF_MACHINES:
        from hostel.errors import machine

        return getattr(machine, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
