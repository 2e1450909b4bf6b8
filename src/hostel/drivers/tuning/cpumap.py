"""Sets of the host's CPUs, as they go over the wire: bits, the lowest of the first byte is CPU 0."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def cpus_of(raw: bytes) -> frozenset[int]:
    """The CPUs whose bits are set."""
    value = int.from_bytes(raw, "little")
    return frozenset(index for index in range(value.bit_length()) if value >> index & 1)


def cpumap(cpus: Collection[int], length: int | None = None) -> bytes:
    """The bits of CPUs, in so many bytes; what does not fit is left out. None: in as many as it takes."""
    needed = max(cpus, default=0) // 8 + 1
    raw = sum(1 << cpu for cpu in cpus).to_bytes(needed, "little")
    return raw if length is None else raw[:length].ljust(length, b"\0")


def cpumaps(sets: Iterable[Collection[int]], length: int) -> bytes:
    """Several sets, one after the other, each in so many bytes."""
    return b"".join(cpumap(cpus, length) for cpus in sets)
