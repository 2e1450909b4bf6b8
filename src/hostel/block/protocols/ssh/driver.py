"""The protocol driver ``ssh``."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from hostel.block import notice
from hostel.block.driver import FormatInfo, OpenMode, Supports
from hostel.block.lasting import LastingSync
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import Preallocation
from hostel.block.protocol import SIZE, Creation, ProtocolDriver
from hostel.block.protocols.ssh.connection import USUAL_PORT, HostKeyCheck, Place, RemoteFile
from hostel.errors import BlockError
from hostel.units import SECTOR

_HASHES: Final = ("md5", "sha1", "sha256")
_MODES: Final = ("none", "hash", "known_hosts")
_OPTIONS: Final = Options(
    Option("server.host", Kind.STRING, "Host to connect to"),
    Option("server.port", Kind.STRING, "Port to connect to"),
    Option("path", Kind.STRING, "Path of the image on the host"),
    Option("user", Kind.STRING, "User as which to connect"),
    Option("host-key-check.mode", Kind.STRING, "none, hash or known_hosts"),
    Option("host-key-check.type", Kind.STRING, "md5, sha1 or sha256"),
    Option("host-key-check.hash", Kind.STRING, "Hexadecimal hash of the host's key"),
    Option("host", Kind.STRING, "Host to connect to"),
    Option("port", Kind.NUMBER, "Port to connect to"),
    Option("host_key_check", Kind.STRING, "Defines how and what to check the host key against"),
)


class SshDriver(ProtocolDriver):
    """A file on a host that is reached by SSH.

    Reads beyond the end are zeroes and writes beyond it extend the file. The protocol tells no holes and gives no space
    back: zeroes are written, and discarding does nothing. The file never shrinks.
    """

    name = "ssh"
    supports = Supports.WRITE | Supports.GROWS
    creation = Creation.NEW
    create_options = Options(SIZE)
    options: Final = _OPTIONS  # type: ignore[misc]

    def __init__(self, file: RemoteFile, filename: str, *, no_flush: bool) -> None:
        super().__init__()
        self.filename = filename
        self._file = file
        self._no_flush = no_flush
        self._sync = LastingSync()

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """Read ``ssh://[USER@]HOST[:PORT]/PATH[?host_key_check=…]``; other parameters mean nothing.

        Raises:
            OptionError: it is no such name.
        """
        try:
            uri = urlsplit(name)
            host, port = uri.hostname, uri.port
        except ValueError:
            raise OptionError("No valid URL specified") from None
        if uri.scheme != "ssh":
            raise OptionError("URI scheme must be 'ssh'")
        if not host:
            raise OptionError("missing hostname in URI")
        if not uri.path:
            raise OptionError("missing remote path in URI")
        options = {"server.host": unquote(host), "server.port": str(port or USUAL_PORT), "path": unquote(uri.path)}
        if uri.username:
            options["user"] = unquote(uri.username)
        for parameter, value in parse_qsl(uri.query, keep_blank_values=True):
            if parameter == "host_key_check":
                options["host_key_check"] = value
        return options

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Log in to the host that the options name.

        Raises:
            OptionError: the options are wrong.
            BlockError: the host cannot be reached, is not the one that is meant, or refuses; the text is QEMU's.
        """
        values = cls.converted(options)
        _settle_place(values)
        place = Place(values["server.host"], int(values["server.port"]), _user(values), values["path"], _check(values))
        file = RemoteFile(place, writable=not mode.read_only, creating=creating)
        given = values.get("host_key_check")
        shown = f"ssh://{place.user}@{place.host}:{place.port}{place.path}"
        return cls(file, shown + (f"?host_key_check={given}" if given else ""), no_flush=mode.cache.no_flush)

    @property
    def length(self) -> int:
        """The file's size, in whole sectors."""
        return -(-self._file.size // SECTOR) * SECTOR

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``; what is beyond the end reads as zeroes."""
        inside = max(0, min(len(buf), self._file.size - offset))
        buf[inside:] = bytes(len(buf) - inside)
        if inside:
            self._file.read(offset, buf[:inside])

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        self._file.write(offset, data)

    def flush(self) -> None:
        """Have the host store what was written; a host that has no way to be asked for that is told of once."""
        if not self._no_flush:
            self._sync(self._store)

    def _store(self) -> None:
        if self._file.can_sync and not self._file.sync():
            notice.tell(f"warning: ssh server of '{self.filename}' does not support fsync: a flush is not safe there")

    def info(self) -> FormatInfo:
        """Nothing beyond the size."""
        return FormatInfo(dirty=None)

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Grow the file.

        Raises:
            BlockError: it would shrink, or the host refuses.
        """
        if preallocation is not Preallocation.OFF:
            raise BlockError(f"Unsupported preallocation mode '{preallocation.value}'", errno=errno.ENOTSUP)
        if size < self._file.size:
            raise BlockError("ssh driver does not support shrinking files", errno=errno.ENOTSUP)
        if size > self._file.size:
            self._file.truncate(size)

    def close(self) -> None:
        """Close the file and the connection."""
        self._file.close()


def _settle_place(values: dict[str, Any]) -> None:
    """Put the older words for the server into the newer ones, and see that nothing is missing."""
    if "port" in values and "host" not in values:
        raise OptionError("port may not be used without host")
    if "host" in values:
        values["server.host"], values["server.port"] = values["host"], str(values.get("port", USUAL_PORT))
    if not any(name.startswith("server.") for name in values):
        raise OptionError("Parameter 'server' is missing")
    for name in ("path", "server.host", "server.port"):
        if name not in values:
            raise OptionError(f"Parameter '{name}' is missing")
    if not values["server.port"].isdecimal():
        raise OptionError("Use only numeric port value")


def _user(values: Mapping[str, Any]) -> str:
    if "user" in values:
        return str(values["user"])
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise BlockError("Can't get user name", errno=errno.ENOENT) from None


def _check(values: Mapping[str, Any]) -> HostKeyCheck:
    """How the host has to prove who it is: the older word for it, or the newer ones."""
    setting = values.get("host_key_check")
    if setting is None:
        check = HostKeyCheck(
            values.get("host-key-check.mode", "known_hosts"),
            values.get("host-key-check.type", ""),
            values.get("host-key-check.hash", ""),
        )
        if check.mode not in _MODES:
            raise OptionError(f"Parameter 'mode' does not accept value '{check.mode}'")
        if check.mode == "hash":
            for name in ("type", "hash"):
                if f"host-key-check.{name}" not in values:
                    raise OptionError(f"Parameter 'host-key-check.{name}' is missing")
            if check.type not in _HASHES:
                raise OptionError(f"Parameter 'type' does not accept value '{check.type}'")
        return check
    if setting in ("no", "yes"):
        return HostKeyCheck("none" if setting == "no" else "known_hosts")
    kind, colon, value = setting.partition(":")
    if colon and kind in _HASHES:
        return HostKeyCheck("hash", kind, value)
    raise OptionError(f"unknown host_key_check setting ({setting})")
