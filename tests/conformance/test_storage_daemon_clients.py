"""Several exports of a storage daemon under clients at one time: every byte is where it was written, as with QEMU."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.daemon import OURS, THEIRS, daemon

pytestmark = [
    pytest.mark.requires_tool("qemu-storage-daemon"),
    pytest.mark.requires_tool("qemu-img"),
    pytest.mark.requires_tool("qemu-io"),
]
MIB = 1 << 20
SIZE = 8 * MIB
CLIENTS = 2  # of each export, each with a part of its own
EXPORTS = ("plain", "overlay", "limited")


def requests(seed: int, start: int, stop: int, content: bytearray) -> list[str]:
    """What a client does in its part of a disk, which ``content`` is afterwards; requests in flight do not overlap."""
    chosen = random.Random(seed)
    lines = []
    for _ in range(12):
        places = chosen.sample(range(start, stop, MIB // 4), 4)
        for place in places:
            offset, length = place + chosen.randrange(0, 128) * 512, chosen.randrange(1, 256) * 512
            kind = chosen.choice(("write", "write", "write", "zero"))
            pattern = 0 if kind == "zero" else chosen.randrange(1, 256)
            content[offset : offset + length] = bytes([pattern]) * length
            how = f"-P {pattern}" if pattern else chosen.choice(("-z", "-z -u"))
            lines.append(f"aio_write {how} {offset} {length}")
        lines.append("aio_flush")
        offset = chosen.randrange(start, stop - MIB) // 512 * 512
        if len(set(content[offset : offset + 512])) == 1:
            lines.append(f"read -P {content[offset]} {offset} 512")
    return [*lines, "flush"]


def client(folder: Path, export: str, lines: Sequence[str]) -> subprocess.Popen[str]:
    words = [word for line in lines for word in ("-c", line)]
    place = f"nbd+unix:///{export}?socket={folder}/nbd.sock"
    return subprocess.Popen(["qemu-io", "-f", "raw", *words, place], stdout=subprocess.PIPE, text=True)


def copied(*source: str) -> bytes:
    """A disk's bytes, as real qemu-img reads it."""
    target = Path(source[-1])
    subprocess.run(["qemu-img", "convert", "-O", "raw", *source], check=True, timeout=60)
    return target.read_bytes()


def opened_again(turn: int) -> list[dict[str, object]]:
    """The nodes with other options than in the turn before."""
    odd = turn % 2 == 1
    cache = {"no-flush": odd}
    files = {
        name: {"driver": "file", "filename": f"{name}.img", "cache": {"direct": False, **cache}}
        for name in ("plain", "overlay", "limited")
    }
    return [
        {"driver": "raw", "node-name": "plain", "file": files["plain"], "detect-zeroes": "on" if odd else "off"},
        {
            "driver": "qcow2",
            "node-name": "overlay",
            "file": files["overlay"],
            "backing": "base" if odd else "again",
            "lazy-refcounts": odd,
        },
        {"driver": "qcow2", "node-name": "image", "file": files["limited"], "l2-cache-size": 65536 << odd},
        {"driver": "throttle", "node-name": "limited", "file": "image", "throttle-group": "h" if odd else "g"},
    ]


def serve(folder: Path, tool: Sequence[str]) -> list[str]:
    """Let clients work on all exports at once, hold every byte against what they wrote; the bitmaps' sums."""
    folder.mkdir()
    for line in (
        "create -q -f raw plain.img 8M",
        "create -q -f qcow2 base.img 8M",
        "create -q -f qcow2 -b base.img -F qcow2 overlay.img",
        "create -q -f qcow2 limited.img 8M",
    ):
        subprocess.run(["qemu-img", *line.split()], cwd=folder, check=True, timeout=60)
    base = ["qemu-io", "-f", "qcow2", "-c", "write -P 201 0 8M", "base.img"]
    subprocess.run(base, cwd=folder, check=True, capture_output=True, timeout=60)
    words = [
        *("--object", "throttle-group,id=g,x-bps-total=50000000,x-iops-total=2000"),
        *("--object", "throttle-group,id=h,x-bps-total=90000000"),
        *("--blockdev", "qcow2,node-name=base,file.driver=file,file.filename=base.img,read-only=on"),
        *("--blockdev", "qcow2,node-name=again,file.driver=file,file.filename=base.img,read-only=on"),
        *("--blockdev", "raw,node-name=plain,file.driver=file,file.filename=plain.img,discard=unmap"),
        *(
            "--blockdev",
            "qcow2,node-name=overlay,file.driver=file,file.filename=overlay.img,discard=unmap,backing=base",
        ),
        *("--blockdev", "qcow2,node-name=image,file.driver=file,file.filename=limited.img,discard=unmap"),
        *("--blockdev", "throttle,node-name=limited,throttle-group=g,file=image,discard=unmap"),
        *("--nbd-server", "addr.type=unix,addr.path=nbd.sock"),
        *(word for name in EXPORTS for word in ("--export", f"nbd,id={name},node-name={name},name={name},writable=on")),
    ]
    contents = {name: bytearray(bytes([201 if name == "overlay" else 0]) * SIZE) for name in EXPORTS}
    sums = []
    with daemon(folder, *words, tool=tool) as running:
        for name in ("plain", "overlay", "image"):
            running.monitor.command("block-dirty-bitmap-add", node=name, name="b", granularity=65536)
        working = []
        for number, name in enumerate(EXPORTS):
            for part in range(CLIENTS):
                start, stop = part * SIZE // CLIENTS, (part + 1) * SIZE // CLIENTS
                working.append(client(folder, name, requests(number * 10 + part, start, stop, contents[name])))
        limits = [{"iops-total": 4000, "bps-total": 0}, {"bps-total": 80_000_000}]
        for turn in range(10):
            running.monitor.command("qom-set", path="g", property="limits", value=limits[turn % 2])
            running.monitor.command("query-named-block-nodes")
            running.monitor.command("block-set-write-threshold", node_name="plain", write_threshold=MIB)
            running.monitor.command("blockdev-reopen", options=opened_again(turn))
        for process in working:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            assert "failed" not in out
        for name in EXPORTS:
            shown = copied("-f", "raw", f"nbd+unix:///{name}?socket={folder}/nbd.sock", str(folder / "shown"))
            assert shown == contents[name], name
        for name in ("plain", "overlay", "image"):
            found = running.monitor.command("x-debug-block-dirty-bitmap-sha256", node=name, name="b")
            sums.append(found["sha256"])
        assert running.stop() == 0
    for name in EXPORTS:
        format = "raw" if name == "plain" else "qcow2"
        assert copied("-f", format, str(folder / f"{name}.img"), str(folder / "shown")) == contents[name], name
        if format == "qcow2":
            subprocess.run(["qemu-img", "check", "-q", str(folder / f"{name}.img")], check=True, timeout=60)
    return sums


def test_what_many_clients_write_is_where_they_wrote_it(tmp_path: Path) -> None:
    assert serve(tmp_path / "ours", OURS) == serve(tmp_path / "real", THEIRS)
