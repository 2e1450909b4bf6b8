"""The protocol driver ``iscsi``."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self
from urllib.parse import unquote

from hostel.block import filename as names
from hostel.block import objects
from hostel.block.driver import FormatInfo, OpenMode, Supports
from hostel.block.extent import Extent, Status
from hostel.block.options import Kind, Option, OptionError, Options
from hostel.block.powers import Preallocation
from hostel.block.protocol import ProtocolDriver
from hostel.block.protocols.iscsi.library import Login, Unit
from hostel.errors import BlockError, NoSpace, UnsupportedFeature
from hostel.units import MiB

_OPTIONS: Final = Options(
    Option("transport", Kind.STRING, "Transport: tcp"),
    Option("portal", Kind.STRING, "Host and port of the target's server"),
    Option("target", Kind.STRING, "Name of the target"),
    Option("user", Kind.STRING, "User name for CHAP"),
    Option("password", Kind.STRING, "Password for CHAP"),
    Option("password-secret", Kind.STRING, "ID of the secret with the password for CHAP"),
    Option("lun", Kind.NUMBER, "Number of the logical unit", "0"),
    Option("initiator-name", Kind.STRING, "Our name towards the target"),
    Option("header-digest", Kind.STRING, "crc32c, none, crc32c-none or none-crc32c"),
    Option("timeout", Kind.NUMBER, "Seconds for a command", "0"),
)
_URL: Final = re.compile(
    r"iscsi://(?:(?P<user>[^%@/]*)%(?P<password>[^@/]*)@)?(?P<portal>\[[^]/]*\](?::\d+)?|[^/@]+)"
    r"/(?P<target>[^/?]+)/(?P<lun>\d+)(?:\?.*)?"
)
_INITIATOR: Final = "iqn.2008-11.org.linux-kvm"
_AT_ONCE: Final = MiB  # bytes of a command
_ZEROES: Final = memoryview(bytes(MiB))


class IscsiDriver(ProtocolDriver):
    """A logical unit of an iSCSI target.

    Requests that do not fit its blocks read and write what is around them. Zeroing gives space back where that is
    allowed and the unit promises that it reads as zeroes then; else zeroes are written.
    """

    name = "iscsi"
    supports = Supports.WRITE | Supports.ZEROES | Supports.DISCARD | Supports.ENDS
    options: Final = _OPTIONS  # type: ignore[misc]
    starts_as_zeroes = False

    def __init__(self, unit: Unit, filename: str, *, no_flush: bool, creating: bool) -> None:
        super().__init__()
        self.filename = filename
        self._unit = unit
        self._no_flush = no_flush
        self._can_zero = True
        self._creating = creating

    @classmethod
    def parse_filename(cls, name: str) -> dict[str, str]:
        """Read ``iscsi://[USER%PASSWORD@]HOST[:PORT]/TARGET/LUN``.

        Raises:
            OptionError: it is no such name.
        """
        match = _URL.fullmatch(name)
        if match is None:
            raise OptionError(
                f"Failed to parse URL : {names.without_secrets(name)}",
                hint="It has this form: iscsi://[USER%PASSWORD@]HOST[:PORT]/TARGET/LUN",
            )
        options = {
            "transport": "tcp",
            "portal": match["portal"],
            "target": unquote(match["target"]),
            "lun": match["lun"],
        }
        if match["user"]:
            options |= {"user": unquote(match["user"]), "password": unquote(match["password"])}
        return options

    @classmethod
    def open(cls, options: Mapping[str, Any], mode: OpenMode, *, creating: bool = False) -> Self:
        """Log in to the target that the options name.

        Raises:
            OptionError: the options are wrong.
            BlockError: the target cannot be reached, or refuses; the text is QEMU's.
        """
        values = cls.converted(options)
        unit = Unit(_login(values))
        if unit.is_protected and not mode.read_only:
            unit.close()
            raise BlockError("LUN is write protected", errno=errno.EACCES)
        filename = f"iscsi://{values['portal']}/{values['target']}/{values['lun']}"
        return cls(unit, filename, no_flush=mode.cache.no_flush, creating=creating)

    @property
    def length(self) -> int:
        """The unit's size in bytes."""
        size: int = self._unit.blocks * self._unit.block_size
        return size

    def pread(self, offset: int, buf: memoryview) -> None:
        """Fill ``buf``."""
        size = self._unit.block_size
        while buf:
            block, before = divmod(offset, size)
            count = min(len(buf), _AT_ONCE - before)
            whole = -(-(before + count) // size) * size
            if not before and whole == count:
                self._unit.read(block, buf[:count])
            else:
                around = memoryview(bytearray(whole))
                self._unit.read(block, around)
                buf[:count] = around[before : before + count]
            offset, buf = offset + count, buf[count:]

    def pwrite(self, offset: int, data: memoryview) -> None:
        """Write all of ``data``."""
        size = self._unit.block_size
        while data:
            block, before = divmod(offset, size)
            count = min(len(data), _AT_ONCE - before)
            whole = -(-(before + count) // size) * size
            if not before and whole == count:
                self._unit.write(block, data[:count])
            else:
                around = memoryview(bytearray(whole))
                self._unit.read(block, around)
                around[before : before + count] = data[:count]
                self._unit.write(block, around)
            offset, data = offset + count, data[count:]

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero a range, by the target where it can.

        UNMAP would not do: a target need not give back what it is told to, and then keeps what was there.
        """
        size, end = self._unit.block_size, offset + length
        low, high = -(-offset // size) * size, end // size * size
        if low >= high or not self._zero(low, high, unmap=unmap):
            low = high = offset
        for start, stop in ((offset, low), (high, end)):
            for position in range(start, stop, len(_ZEROES)):
                self.pwrite(position, _ZEROES[: min(len(_ZEROES), stop - position)])

    def _zero(self, low: int, high: int, *, unmap: bool) -> bool:
        """Have the target zero whole blocks; False where it does not know how, which is remembered."""
        size = self._unit.block_size
        if self._can_zero:
            try:
                self._unit.zero(low // size, (high - low) // size, unmap=unmap)
            except BlockError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._can_zero = False
        return self._can_zero

    def zeroes_fast(self, offset: int, length: int, *, unmap: bool) -> bool:
        """Whether zeroing gives space back."""
        return unmap and self._can_zero and self._unit.zeroes_thin

    def discard(self, offset: int, length: int) -> None:
        """Give whole blocks of a range back, where the unit takes them."""
        low, high = self._inside(offset, length)
        if self._unit.unmaps and low < high:
            self._unit.unmap(low // self._unit.block_size, (high - low) // self._unit.block_size)

    def _inside(self, offset: int, length: int) -> tuple[int, int]:
        """The largest range of units that can be given back within a range."""
        granule = self._unit.block_size * max(1, self._unit.unmap_granule)
        return -(-offset // granule) * granule, (offset + length) // granule * granule

    def flush(self) -> None:
        """Have the target store what was written."""
        if not self._no_flush:
            self._unit.sync()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What has space of its own, where the unit tells; else everything is data."""
        end = offset + length
        size = self._unit.block_size
        while offset < end:
            count, is_data = end - offset, True
            if self._unit.thin:
                try:
                    blocks, is_data = self._unit.provisioned(offset // size)
                    count = min(count, blocks * size - offset % size)
                except BlockError as error:
                    if error.errno != errno.EINVAL:  # it has no such command
                        raise
            status = Status.DATA if is_data else Status.ZERO
            yield Extent(offset, count, status | Status.ALLOCATED, offset)
            offset += count

    def info(self) -> FormatInfo:
        """Nothing beyond the size."""
        return FormatInfo()

    def resize(self, size: int, preallocation: Preallocation = Preallocation.OFF) -> None:
        """Refuse: the unit's size is the target's affair. An image may be laid out in more room than it needs.

        Raises:
            UnsupportedFeature: always, but for that (ENOSPC where it is too small).
        """
        if preallocation is not Preallocation.OFF:
            raise UnsupportedFeature(f"Unsupported preallocation mode '{preallocation.value}'")
        if not self._creating and size != self.length:
            code = errno.ENOSPC if size > self.length else errno.ENOTSUP
            raise UnsupportedFeature("Cannot resize iSCSI devices", errno=code)
        if size > self.length:
            raise NoSpace("Cannot grow iSCSI devices")
        if self._creating:
            # What was there must not be taken for the new image.
            self.write_zeroes(0, min(self._unit.block_size, self.length), unmap=False)

    def close(self) -> None:
        """Log out."""
        self._unit.close()


def _login(values: Mapping[str, Any]) -> Login:
    if not all(values.get(name) for name in ("transport", "portal", "target")):
        raise OptionError("Need all of transport, portal and target options")
    if values["transport"] != "tcp":
        hint = "iSER is not implemented: use tcp." if values["transport"] == "iser" else None
        raise OptionError(f"Unknown transport: {values['transport']}", hint=hint)
    user, password = values.get("user"), values.get("password")
    if user is not None:
        if "password-secret" in values and password is not None:
            raise OptionError("'password' and 'password-secret' properties are mutually exclusive")
        if "password-secret" not in values and password is None:
            raise OptionError("CHAP username specified but no password was given")
    secret = objects.password(values["password-secret"]) if "password-secret" in values else (password or "").encode()
    return Login(
        values["portal"],
        values["target"],
        values["lun"],
        values.get("initiator-name", _INITIATOR),
        values.get("header-digest", "none-crc32c"),
        values["timeout"],
        user,
        secret,
    )
