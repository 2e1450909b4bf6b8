"""A Linux guest that writes numbered blocks for as long as it is let, says what it flushed, and what must be there.

Several writers write blocks of 4 KiB, each sector of which says which write it is of. Each writer has blocks of its
own, writes them in an order that is known here, reads some back, flushes every few writes, and says so on the serial
port. From what it said follows what each sector of the disk may hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from support import qemu
from support.linux import BEGIN, END, Linux

SECTOR: Final = 512
BLOCK: Final = 4096
WRITERS: Final = 3
ROUND: Final = 4  # writes between flushes
_PRIME: Final = 7919  # of a writer's steps through its blocks
_NUMBER: Final = 10_000_000  # of writes that one writer may do

# A write that fails, a flush that fails and a block that reads as something else are said, and not the script's end.
_SCRIPT: Final = r"""
trap '' PIPE
P=$(printf "%501s" "")
write() {
    l="$2"; b=""
    for i in 0 1 2 3 4 5 6 7; do b="$b$l:$i$P
"; done
    printf %s "$b" | dd of=/dev/vda bs=4096 seek=$1 iflag=fullblock oflag=direct conv=$3 2>/dev/null
}
writer() {
    id=$1; n=0; k=0
    while [ ! -e /tmp/stop ]; do
        n=$((n+1)); k=$((k+1)); number=$((id*10000000+n)); block=$(((id-1)*SPAN+(n*7919)%SPAN))
        if [ $k -lt ROUND ]; then
            write $block $number notrunc || echo "<E $id $n>"
            continue
        fi
        k=0
        if write $block $number notrunc; then
            found=$(dd if=/dev/vda bs=4096 skip=$block count=1 iflag=direct 2>/dev/null | head -c 8) || found=error
            [ "$found" = $number ] || echo "<R $id $n $found>"
        else
            echo "<E $id $n>"
        fi
        said=F
        dd if=/dev/null of=/dev/vda count=0 conv=notrunc,fsync 2>/dev/null || said=U
        echo "<$said $id $n>"
    done
    echo "<D $id $n>"
}
for id in $(seq WRITERS); do writer $id & done
echo "<S>"
read word
touch /tmp/stop
wait
echo 3 > /proc/sys/vm/drop_caches
echo "<H $(sha256sum < /dev/vda)>"
"""


class Report(NamedTuple):
    """What the guest said so far.

    Attributes:
        flushed: of each writer, the numbers of the writes that a flush said to be durable.
        failed: of each writer, the numbers of writes that failed.
        unflushed: how many flushes failed.
        wrong: what read as something else than had been written.
        digest: SHA-256 of the whole disk as the guest read it in the end; None where it did not come to that.
    """

    flushed: dict[int, list[int]]
    failed: dict[int, set[int]]
    unflushed: list[tuple[int, int]]
    wrong: list[str]
    digest: str | None


def report(serial: str) -> Report:
    """Read what came over the serial port."""
    said = re.findall(r"<([EFURH]) ([^<>]*)>", serial)
    numbers = [(kind, *map(int, words.split()[:2])) for kind, words in said if kind in "EFU"]
    flushed: dict[int, list[int]] = {id: [] for id in range(1, WRITERS + 1)}
    failed: dict[int, set[int]] = {id: set() for id in range(1, WRITERS + 1)}
    lost: list[tuple[int, int]] = []
    for kind, id, number in numbers:
        if kind == "E":
            failed[id].add(number)
        elif kind == "U":
            lost.append((id, number))
        else:
            after = max([*flushed[id][-1:], *(each for writer, each in lost if writer == id)], default=0)
            flushed[id] += [each for each in range(after + 1, number + 1) if each not in failed[id]]
    digests = [words.split()[0] for kind, words in said if kind == "H"]
    wrong = [words for kind, words in said if kind == "R"]
    return Report(flushed, failed, lost, wrong, digests[0] if digests else None)


def missing(content: bytes, said: Report, size: int) -> list[str]:
    """What is not on the disk though it was flushed, and what was never written there."""
    span = size // BLOCK // WRITERS
    found = []
    for id in range(1, WRITERS + 1):
        last = {(number * _PRIME) % span: number for number in said.flushed[id]}
        for place in range(span):
            block = (id - 1) * span + place
            for sector in range(BLOCK // SECTOR):
                data = content[block * BLOCK + sector * SECTOR :][:SECTOR]
                must = last.get(place, 0)
                number = _number(data, id, sector)
                if number is None or number < must or (number and (number * _PRIME) % span != place):
                    found.append(f"block {block} sector {sector} of writer {id}: {data[:24]!r}, flushed was {must}")
    return found


def _number(data: bytes, id: int, sector: int) -> int | None:
    """Which write of a writer a sector is of; 0 where it is as at first, None where it is none at all."""
    if data == bytes(SECTOR):
        return 0
    match = re.fullmatch(rb"%d(\d{7}):%d {501}\n" % (id, sector), data)
    return int(match[1]) if match else None


class Load:
    """A guest that writes.

    Args:
        folder: where its initramfs and monitor are.
        args: QEMU's arguments for the disk, which is ``/dev/vda``.
        size: of the disk, bytes.
    """

    def __init__(self, folder: Path, args: Sequence[str], size: int) -> None:
        linux = Linux(folder)
        script = _SCRIPT.replace("SPAN", str(size // BLOCK // WRITERS)).replace("WRITERS", str(WRITERS))
        initrd = folder / "initrd"
        initrd.write_bytes(linux.initramfs(script.replace("ROUND", str(ROUND)), {}))
        append = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable"
        boot = [
            "-kernel",
            str(linux.kernel.image),
            "-initrd",
            str(initrd),
            "-append",
            append,
            "-cpu",
            "max",
            "-no-reboot",
        ]
        self.machine = qemu.Machine([*boot, *args], memory=256, monitor=folder / "guest.sock")

    def start(self) -> None:
        """Wait until it writes."""
        self.machine.wait_for("<S>", timeout=100)

    def wait_for(self, what: str, more: int, timeout: float = 60) -> None:
        """Wait until it has said something so many times more: ``<F `` for a flush, ``<U `` for one that failed."""
        said = self.machine.serial
        self.machine.wait_for(what, times=said.count(what) + more, timeout=timeout)

    def end(self) -> Report:
        """Have it stop writing, read all, and switch itself off."""
        self.machine.type("stop\n")
        status = self.machine.wait(timeout=100)
        serial = self.machine.serial
        assert status == 0, self.machine.errors
        assert BEGIN in serial and f"{END}0" in serial, serial
        return report(serial)

    def close(self) -> None:
        """End it."""
        self.machine.close()
