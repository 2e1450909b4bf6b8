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

import enum
import errno as _errno


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


class UntrustedReference(BlockError):
    """An image opened as untrusted names a file or an address outside itself."""

    default_errno = _errno.EACCES


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


class ErrorCode(enum.IntEnum):
    """libvirt's ``virErrorNumber``: the values are libvirt's own and go over the wire."""

    OK = 0
    INTERNAL_ERROR = 1
    NO_MEMORY = 2
    NO_SUPPORT = 3
    UNKNOWN_HOST = 4
    NO_CONNECT = 5
    INVALID_CONN = 6
    INVALID_DOMAIN = 7
    INVALID_ARG = 8
    OPERATION_FAILED = 9
    XML_ERROR = 27
    DOM_EXIST = 28
    OPERATION_DENIED = 29
    NO_NETWORK = 43
    NETWORK_EXIST = 34
    SYSTEM_ERROR = 38
    RPC = 39
    NO_DOMAIN = 42
    INVALID_MAC = 44
    AUTH_FAILED = 45
    INVALID_STORAGE_POOL = 46
    INVALID_STORAGE_VOL = 47
    NO_STORAGE_POOL = 49
    NO_STORAGE_VOL = 50
    OPERATION_INVALID = 55
    NO_DOMAIN_SNAPSHOT = 72
    CONFIG_UNSUPPORTED = 67
    OPERATION_TIMEOUT = 68
    OPERATION_UNSUPPORTED = 84
    RESOURCE_BUSY = 87
    STORAGE_VOL_EXIST = 90


class ErrorDomain(enum.IntEnum):
    """libvirt's ``virErrorDomain``: which part of the system speaks."""

    NONE = 0
    DOM = 6
    QEMU = 10
    CONF = 13
    NETWORK = 19
    DOMAIN = 20
    STORAGE = 18
    TEST = 12
    XML = 5


class ErrorLevel(enum.IntEnum):
    """libvirt's ``virErrorLevel``."""

    NONE = 0
    WARNING = 1
    ERROR = 2


class VirtError(HostelError):
    """libvirt's error struct, in process and on the wire.

    Attributes:
        code: what happened; programs match on it.
        domain: which part of the system speaks.
        level: error or warning.
        message: the whole text, as libvirt would print it.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        domain: ErrorDomain = ErrorDomain.NONE,
        level: ErrorLevel = ErrorLevel.ERROR,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.domain = domain
        self.level = level
        self.message = message


class ModelError(HostelError):
    """A document's shape or rule is broken.

    Attributes:
        path: the element or attribute, such as ``/domain/devices/disk[2]/source/@file``.
        reason: what is wrong with it and what to write instead.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason


class UsageError(HostelError):
    """The command line is wrong; the message says how to call it."""
