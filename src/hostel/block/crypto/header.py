"""The header of a LUKS volume, version 1: layout, limits, and what its names mean.

LUKS On-Disk Format Specification, version 1.2.3, section 3. Offsets of key material and of the payload are sectors of
512 bytes. What is refused, and in which words, is as QEMU has it; the sums are exact here, where a header could make
them overflow.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from hostel.block.crypto.algorithm import HASHES, IV_GENERATORS, MODES, Cipher, cipher_of, essiv_cipher
from hostel.block.crypto.sector import Scheme
from hostel.codec.record import Record, u16, u32
from hostel.errors import InvalidImage, UnsupportedFeature
from hostel.units import SECTOR

MAGIC: Final = b"LUKS\xba\xbe"
SLOTS: Final = 8
STRIPES: Final = 4000
ENABLED: Final = 0x00AC71F3
DISABLED: Final = 0x0000DEAD
FIRST_MATERIAL: Final = 4096  # bytes: where the first slot's key material lies, and what all areas are a multiple of
DIGEST_LENGTH: Final = 20
SALT_LENGTH: Final = 32
_AREA: Final = FIRST_MATERIAL // SECTOR
_DETACHED_HINT: Final = (
    "It may be a header whose payload lies in another file: open both with --image-opts "
    "driver=luks,file.filename=PAYLOAD,header.filename=HEADER."
)


class KeySlot(Record, endian="big"):
    """One of eight places for the volume's key, encrypted with a passphrase."""

    active: u32
    iterations: u32
    salt: Annotated[bytes, 32]
    key_offset: u32
    stripes: u32


class FixedHeader(Record, endian="big"):
    """What stands before the key slots."""

    magic: Annotated[bytes, 6]
    version: u16
    cipher_name: Annotated[bytes, 32]
    cipher_mode: Annotated[bytes, 32]
    hash_spec: Annotated[bytes, 32]
    payload_offset: u32
    key_length: u32
    digest: Annotated[bytes, 20]
    digest_salt: Annotated[bytes, 32]
    digest_iterations: u32
    uuid: Annotated[bytes, 40]


HEADER_LENGTH: Final = FixedHeader.SIZE + SLOTS * KeySlot.SIZE


class LuksHeader:
    """A header that has been found sound.

    Attributes:
        fixed: the fields before the slots.
        slots: the key slots.
        scheme: how the payload, and the key material, is encrypted.
        hash: of the passphrase and of the stripes.
    """

    def __init__(self, fixed: FixedHeader, slots: list[KeySlot], *, detached: bool = False) -> None:
        self.fixed = fixed
        self.slots = slots
        _check(fixed, slots, detached=detached)
        self.scheme = _scheme(fixed)
        self.hash = _hash(_text(fixed.hash_spec))

    @classmethod
    def parse(cls, data: bytes, *, detached: bool = False) -> LuksHeader:
        """Parse the first :data:`HEADER_LENGTH` bytes.

        Args:
            data: the bytes.
            detached: the payload lies elsewhere, so that no offset can lie in it.

        Raises:
            InvalidImage: it is malformed.
            UnsupportedFeature: of another version, or with a cipher that we do not have.
        """
        fixed = FixedHeader.unpack(data)
        slots = [KeySlot.unpack(data, slot_offset(index)) for index in range(SLOTS)]
        return cls(fixed, slots, detached=detached)

    def pack(self) -> bytes:
        """The header as it lies on disk."""
        return self.fixed.pack() + b"".join(slot.pack() for slot in self.slots)

    @property
    def payload_offset(self) -> int:
        """Where the payload starts, in bytes."""
        return int(self.fixed.payload_offset) * SECTOR

    @property
    def material_length(self) -> int:
        """Bytes of a slot's key material, in whole sectors."""
        return -(-int(self.fixed.key_length) * STRIPES // SECTOR) * SECTOR

    def active_slots(self) -> list[int]:
        """The numbers of the slots that hold a key."""
        return [index for index, slot in enumerate(self.slots) if slot.active == ENABLED]

    def describe(self) -> dict[str, Any]:
        """QEMU's ``QCryptoBlockInfoLUKS``."""
        scheme = self.scheme
        return {
            "cipher-alg": scheme.cipher.name,
            "cipher-mode": scheme.mode,
            "ivgen-alg": scheme.ivgen,
            **({"ivgen-hash-alg": scheme.ivgen_hash} if scheme.ivgen == "essiv" else {}),
            "hash-alg": self.hash,
            **({} if self.payload_offset else {"detached-header": True}),  # QEMU 9.0 says false of the others
            "payload-offset": self.payload_offset,
            "master-key-iters": self.fixed.digest_iterations,
            "uuid": _text(self.fixed.uuid),
            "slots": [_describe_slot(slot) for slot in self.slots],
        }


def slot_offset(index: int) -> int:
    """Where a slot's record lies in the header, in bytes."""
    return FixedHeader.SIZE + index * KeySlot.SIZE


def area_sectors(key_length: int) -> int:
    """Sectors that a slot's key material is given, as cryptsetup reckons them."""
    sectors = -(-key_length * STRIPES // SECTOR)
    return -(-sectors // _AREA) * _AREA


def new_header(scheme: Scheme, hash: str, *, uuid: str, detached: bool = False) -> LuksHeader:
    """A header without keys.

    Args:
        scheme: how the payload is encrypted; a hash that it names is recorded even with an IV generator that has no
            use for it.
        hash: of passphrases and stripes.
        uuid: names the volume.
        detached: the payload lies in a file of its own, from its first byte on.
    """
    mode = f"{scheme.mode}-{scheme.ivgen}" + (f":{scheme.ivgen_hash}" if scheme.ivgen_hash else "")
    area = area_sectors(scheme.key_length)
    fixed = FixedHeader(
        magic=MAGIC,
        version=1,
        cipher_name=scheme.cipher.family.encode().ljust(32, b"\0"),
        cipher_mode=mode.encode().ljust(32, b"\0"),
        hash_spec=hash.encode().ljust(32, b"\0"),
        payload_offset=0 if detached else _AREA + SLOTS * area,
        key_length=scheme.key_length,
        digest=bytes(DIGEST_LENGTH),
        digest_salt=bytes(SALT_LENGTH),
        digest_iterations=1,
        uuid=uuid.encode().ljust(40, b"\0"),
    )
    slots = [
        KeySlot(
            active=DISABLED,
            iterations=0,
            salt=bytes(SALT_LENGTH),
            key_offset=_AREA + index * area,
            stripes=STRIPES,
        )
        for index in range(SLOTS)
    ]
    return LuksHeader(fixed, slots, detached=detached)


def _describe_slot(slot: KeySlot) -> dict[str, Any]:
    active = slot.active == ENABLED
    found: dict[str, Any] = {"active": active, "key-offset": slot.key_offset * SECTOR}
    return found | ({"iters": slot.iterations, "stripes": slot.stripes} if active else {})


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode(errors="replace")


def _check(fixed: FixedHeader, slots: list[KeySlot], *, detached: bool) -> None:
    """Refuse what QEMU refuses, in its order."""
    if fixed.magic != MAGIC:
        raise InvalidImage("Volume is not in LUKS format")
    if fixed.version != 1:
        hint = "With cryptsetup convert --type luks1, make it version 1 if its keys allow that."
        raise UnsupportedFeature(
            f"LUKS version {fixed.version} is not supported", hint=hint if fixed.version == 2 else None
        )
    for field, name in (
        (fixed.cipher_name, "cipher name"),
        (fixed.cipher_mode, "cipher mode"),
        (fixed.hash_spec, "hash spec"),
    ):
        if b"\0" not in field:
            raise InvalidImage(f"LUKS header {name} is not NUL terminated")
    if fixed.payload_offset < _AREA and not detached:
        raise InvalidImage(
            "LUKS payload is overlapping with the header", hint=None if fixed.payload_offset else _DETACHED_HINT
        )
    if not fixed.digest_iterations:
        raise InvalidImage("LUKS key iteration count is zero")
    length = area_sectors(fixed.key_length)
    for index, slot in enumerate(slots):
        _check_slot(index, slot, length, None if detached else fixed.payload_offset)
        for other, second in enumerate(slots[index + 1 :], index + 1):
            if slot.key_offset + length > second.key_offset and second.key_offset + length > slot.key_offset:
                raise InvalidImage(f"Keyslots {index} and {other} are overlapping in the header")


def _check_slot(index: int, slot: KeySlot, length: int, payload: int | None) -> None:
    if slot.stripes != STRIPES:
        signed = slot.stripes - (2**32 if slot.stripes >= 2**31 else 0)
        raise InvalidImage(f"Keyslot {index} is corrupted (stripes {signed} != {STRIPES})")
    if slot.active not in (ENABLED, DISABLED):
        raise InvalidImage(f"Keyslot {index} state (active/disable) is corrupted")
    if slot.active == ENABLED and not slot.iterations:
        raise InvalidImage(f"Keyslot {index} iteration count is zero")
    if slot.key_offset < _AREA:
        raise InvalidImage(f"Keyslot {index} is overlapping with the LUKS header")
    if payload is not None and slot.key_offset + length > payload:
        raise InvalidImage(f"Keyslot {index} is overlapping with the encrypted payload")


def _scheme(fixed: FixedHeader) -> Scheme:
    """Read ``<mode>-<IV generator>[:<hash>]``, and the cipher."""
    text = _text(fixed.cipher_mode)
    mode, dash, generator = text.partition("-")
    if not dash:
        raise InvalidImage(f"Unexpected cipher mode string format '{text}'")
    generator, colon, hash_name = generator.partition(":")
    hash = _hash(hash_name) if colon else None
    if mode not in MODES:
        raise InvalidImage(f"Cipher mode '{mode}' not supported")
    cipher: Cipher = cipher_of(_text(fixed.cipher_name), mode, fixed.key_length)
    if generator not in IV_GENERATORS:
        raise InvalidImage(f"IV generator '{generator}' not supported")
    if generator == "essiv":
        if hash is None:
            raise InvalidImage("Missing IV generator hash specification")
        essiv_cipher(cipher, hash)
    return Scheme(cipher, mode, generator, hash)


def _hash(name: str) -> str:
    if name not in HASHES:
        raise InvalidImage(f"Hash algorithm '{name}' not supported")
    return name
