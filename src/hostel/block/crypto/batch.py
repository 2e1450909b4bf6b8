"""Encryption of hundreds of sectors at once: the modes over the bare block cipher, with whole arrays.

OpenSSL does a call for each sector, and a call from Python costs as much as the encryption of several. So the chaining
and the masks are computed here for all sectors of a piece, and the block cipher is called once over all of it (CBC's
encryption excepted, which is called once a block of the sector). XTS: IEEE 1619, its masks by doubling their number
five times; the multiplication by powers of alpha works on the two halves of the 128 bits.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hostel.block.crypto.sector import block_cipher
from hostel.units import SECTOR, MiB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hostel.block.crypto.sector import SectorCipher

    Words = NDArray[np.uint64]

# Bytes done at once: of small pieces the calls would take the time, and threads would wait for each other's.
_PIECE: Final = MiB
_POLYNOMIAL: Final = (np.uint64(1), np.uint64(2), np.uint64(7))
_WORD: Final = np.dtype("<u8")
_BIG: Final = np.dtype(">u8")


class _Scratch(threading.local):
    """What pieces are computed in; each thread has its own, since to get and give back memory takes half the time."""

    def __init__(self, piece: int) -> None:
        words, sectors = piece // 8, piece // SECTOR
        self.mixed: Words = np.empty(words, dtype=_WORD)
        self.masks: Words = np.empty(words, dtype=_WORD)
        self.out = bytearray(piece + 15)
        self.low: Words = np.empty((SECTOR // 16, sectors), dtype=_WORD)
        self.high: Words = np.empty((SECTOR // 16, sectors), dtype=_WORD)
        self.carry: Words = np.empty((SECTOR // 32, sectors), dtype=_WORD)
        self.shifted: Words = np.empty((SECTOR // 32, sectors), dtype=_WORD)


class Batch:
    """Works for one :class:`SectorCipher`."""

    def __init__(self, sectors: SectorCipher) -> None:
        scheme = sectors.scheme
        self._sectors: SectorCipher = weakref.proxy(sectors)  # which has this: a cycle would keep the buffers for long
        self._mode = scheme.mode
        self._width = scheme.cipher.block_length // 8  # words of a block
        self._cipher = block_cipher(scheme.cipher, sectors.data_key)
        self._tweak = block_cipher(scheme.cipher, sectors.tweak_key) if scheme.mode == "xts" else None
        self._scratch = _Scratch(_PIECE)

    def decrypt(self, sector: int, buf: memoryview) -> None:
        """Decrypt whole sectors in place."""
        words: Words = np.frombuffer(buf, dtype=_WORD)
        for start in range(0, len(words), _PIECE // 8):
            part = words[start : start + _PIECE // 8]
            self._decrypt(sector + start * 8 // SECTOR, part)

    def encrypt(self, sector: int, data: bytes | bytearray | memoryview) -> memoryview:
        """Encrypt whole sectors into a new buffer."""
        words: Words = np.frombuffer(data, dtype=_WORD)
        encrypted: Words = np.empty(len(words), dtype=_WORD)
        for start in range(0, len(words), _PIECE // 8):
            end = start + _PIECE // 8
            self._encrypt(sector + start * 8 // SECTOR, words[start:end], encrypted[start:end])
        return encrypted.data.cast("B")

    # ---- pieces

    def _decrypt(self, sector: int, words: Words) -> None:
        if self._mode == "xts":
            self._masked(self._cipher.decryptor(), sector, words, words)
        elif self._mode == "ctr":
            np.bitwise_xor(words, self._key_stream(sector, len(words)), out=words)
        elif self._mode == "ecb":
            words[:] = self._blocks(self._cipher.decryptor(), words)
        else:
            before = self._shaped(words).copy()
            before[:, 1:] = before[:, :-1]
            before[:, 0] = self._vectors(sector, len(before))
            np.bitwise_xor(self._blocks(self._cipher.decryptor(), words), before.reshape(-1), out=words)

    def _encrypt(self, sector: int, words: Words, encrypted: Words) -> None:
        if self._mode == "xts":
            self._masked(self._cipher.encryptor(), sector, words, encrypted)
        elif self._mode == "ctr":
            np.bitwise_xor(words, self._key_stream(sector, len(words)), out=encrypted)
        elif self._mode == "ecb":
            encrypted[:] = self._blocks(self._cipher.encryptor(), words)
        else:
            plain, chained = self._shaped(words), self._shaped(encrypted)
            encryptor = self._cipher.encryptor()
            before = self._vectors(sector, len(plain))
            for index in range(plain.shape[1]):
                before = self._blocks(encryptor, (plain[:, index] ^ before).reshape(-1)).reshape(before.shape)
                chained[:, index] = before

    def _masked(self, context: Any, sector: int, words: Words, target: Words) -> None:
        """XTS: each block between two applications of its mask."""
        scratch, length = self._scratch, len(words)
        masks, mixed = self._masks(sector, length), scratch.mixed[:length]
        np.bitwise_xor(words, masks, out=mixed)
        context.update_into(mixed.data.cast("B"), scratch.out)
        np.bitwise_xor(np.frombuffer(scratch.out, dtype=_WORD, count=length), masks, out=target)

    # ---- parts

    def _shaped(self, words: Words) -> Words:
        """Words by sector, block and place in the block."""
        return words.reshape(-1, SECTOR // 8 // self._width, self._width)

    def _blocks(self, context: Any, words: Words) -> Words:
        """Send words through the block cipher."""
        out = bytearray(words.nbytes + 15)
        context.update_into(words.data.cast("B"), out)
        return np.frombuffer(out, dtype=_WORD, count=len(words))

    def _vectors(self, sector: int, count: int) -> Words:
        """The initialization vectors of ``count`` sectors, by sector and word."""
        scheme, essiv = self._sectors.scheme, self._sectors.essiv
        width = self._width if essiv is None else essiv[0].block_length // 8
        vectors: Words = np.zeros((count, width), dtype=_WORD)
        vectors[:, 0] = np.arange(sector, sector + count, dtype=_WORD)
        if scheme.ivgen == "plain":
            vectors[:, 0] &= np.uint64(0xFFFFFFFF)
        if essiv is None:
            return vectors
        return self._blocks(block_cipher(*essiv).encryptor(), vectors.reshape(-1)).reshape(count, width)

    def _masks(self, sector: int, length: int) -> Words:
        """XTS's masks for ``length`` words: the encrypted vector, times alpha to the power of the block's number."""
        assert self._tweak is not None
        scratch, count, blocks = self._scratch, length * 8 // SECTOR, SECTOR // 16
        vectors = self._vectors(sector, count).reshape(-1)
        first = self._blocks(self._tweak.encryptor(), vectors).reshape(count, 2)
        low, high = scratch.low[:, :count], scratch.high[:, :count]
        low[0], high[0] = first[:, 0], first[:, 1]
        done = 1
        while done < blocks:
            up, down = np.uint64(done), np.uint64(64 - done)
            lower, upper = low[:done], high[:done]
            carry, shifted = scratch.carry[:done, :count], scratch.shifted[:done, :count]
            target = low[done : 2 * done]
            # x^128 = x^7 + x^2 + x + 1
            np.right_shift(upper, down, out=carry)
            np.left_shift(lower, up, out=target)
            np.bitwise_xor(target, carry, out=target)
            for power in _POLYNOMIAL:
                np.left_shift(carry, power, out=shifted)
                np.bitwise_xor(target, shifted, out=target)
            np.right_shift(lower, down, out=shifted)
            np.left_shift(upper, up, out=carry)
            np.bitwise_or(carry, shifted, out=high[done : 2 * done])
            done *= 2
        masks = scratch.masks[:length].reshape(count, blocks, 2)
        masks[:, :, 0], masks[:, :, 1] = low.T, high.T
        return scratch.masks[:length]

    def _key_stream(self, sector: int, length: int) -> Words:
        """CTR's key stream: the vector is a big-endian number that counts up with each block of the sector."""
        count, blocks = length * 8 // SECTOR, SECTOR // 8 // self._width
        start = self._vectors(sector, count).view(_BIG).astype(_WORD)
        counters = np.empty((count, blocks, self._width), dtype=_BIG)
        last = start[:, -1:] + np.arange(blocks, dtype=_WORD)
        counters[:, :, -1] = last
        if self._width == 2:
            counters[:, :, 0] = start[:, :1] + (last < start[:, -1:])
        return self._blocks(self._cipher.encryptor(), counters.view(_WORD).reshape(-1))
