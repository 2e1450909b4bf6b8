"""The two headers: which one counts, and changing them so that one that counts is always whole."""

from __future__ import annotations

from typing import Final

from hostel.block.formats.vhdx import layout
from hostel.block.formats.vhdx.layout import HEADER_LENGTH, HEADER_OFFSETS, NO_GUID, Header, is_sound, new_guid, sealed
from hostel.block.node import BlockNode
from hostel.block.reading import read_or_say
from hostel.errors import InvalidImage, UnsupportedFeature

_NONE: Final = "No valid VHDX header found"
_MOST: Final = 1 << 63  # of headers that were written before; each write takes one more


class Headers:
    """Both headers of an image.

    Attributes:
        current: the one that counts.
    """

    def __init__(self, file: BlockNode) -> None:
        """Read them.

        Raises:
            InvalidImage: neither can be relied on.
            UnsupportedFeature: the log is of another version.
            BlockError: one cannot be read, which may be the one that counts.
        """
        self._file = file
        self._raw = [read_or_say(file, offset, HEADER_LENGTH, _NONE) for offset in HEADER_OFFSETS]
        valid = [index for index, data in enumerate(self._raw) if _is_valid(data)]
        headers = [Header.unpack(data) for data in self._raw]
        if not valid:
            raise InvalidImage(_NONE)
        self._index = max(valid, key=lambda index: headers[index].sequence_number)
        self.current = headers[self._index]
        same = len(valid) == 2 and headers[0].sequence_number == headers[1].sequence_number
        # Disk2vhd writes both with one number; then they must not differ in anything else either.
        if same and headers[0] != headers[1]:
            raise InvalidImage(_NONE)
        if self.current.log_version:
            raise UnsupportedFeature(f"The log is of version {self.current.log_version}, which is unknown")
        length, offset = self.current.log_length, self.current.log_offset
        if offset < layout.HEADER_SECTION or offset % layout.UNIT or length % layout.UNIT:
            raise InvalidImage(f"The log is said to have {length} bytes at offset {offset}, which is no place for it")
        self._is_opened = False  # whether the file says that we write it

    @property
    def names_log(self) -> bool:
        """Whether they say that there is something to do again."""
        return bool(self.current.log_guid != NO_GUID and self.current.log_length)

    def begin_session(self) -> None:
        """Say that the file, and what the guest sees, is another one from now on; before the first write.

        Raises:
            InvalidImage: there are hardly any numbers left for headers.
        """
        if not self._is_opened:
            if self.current.sequence_number >= _MOST:
                raise InvalidImage(f"The VHDX header's number {self.current.sequence_number} is no honest one")
            changed = {"file_write_guid": new_guid(), "data_write_guid": new_guid()}
            self._write(**changed)
            self._write(**changed)
            self._is_opened = True

    def set_log(self, log_guid: bytes) -> None:
        """Make the log's entries with this GUID count, or none of them (:data:`~layout.NO_GUID`)."""
        self._write(log_guid=log_guid)

    def settle(self) -> None:
        """Let the other header say the same, so that it can stand in for this one; nothing is left to do again."""
        if self._is_opened:
            self._write(log_guid=NO_GUID)

    def _write(self, **changes: bytes) -> None:
        """Change the header that does not count, which does then."""
        header = self.current.replace(sequence_number=self.current.sequence_number + 1, **changes)
        index = 1 - self._index
        data = sealed(header.pack() + self._raw[self._index][Header.SIZE :])
        self._file.pwrite(HEADER_OFFSETS[index], data)
        self._file.flush()
        self._raw[index], self._index, self.current = data, index, header


def _is_valid(data: bytes) -> bool:
    return data.startswith(b"head") and is_sound(data) and Header.unpack(data).version == 1
