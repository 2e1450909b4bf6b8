"""What QEMU 8 to 10 added to qemu-img: long names, commands' options, output on request."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from hostel.block import graph
from hostel.block.extent import Status
from hostel.cli.img.arguments import Command
from hostel.cli.img.main import COMMANDS, main
from hostel.errors import UsageError
from support import images
from support.images import make

# As of 10.1: the long name of each letter, and the letters that are another name of one.
NAMES = {
    "amend": "o=options f=format t=cache p=progress q=quiet",
    "bench": "f=format t=cache c=count d=depth o=offset s=buffer-size S=step-size w=write i=aio n=native q=quiet",
    "bitmap": "f=format g=granularity b=source-file F=source-format",
    "check": "f=format T=cache r=repair U=force-share q=quiet",
    "commit": "f=format t=cache d=drop b=base r=rate-limit p=progress q=quiet",
    "compare": "f=a-format F=b-format s=strict T=cache U=force-share p=progress q=quiet",
    "convert": "f=source-format T=source-cache l=snapshot O=target-format o=target-format-options t=target-cache "
    "b=backing B=backing F=backing-format S=sparse-size n=no-create c=compress r=rate-limit m=parallel W=oob-writes "
    "C=copy-range-offloading p=progress q=quiet",
    "create": "f=format o=options b=backing B=backing-format F=backing-format u=backing-unsafe q=quiet",
    "dd": "f=format O=output-format U=force-share",
    "info": "f=format t=cache U=force-share",
    "map": "f=format s=start-offset l=max-length U=force-share",
    "measure": "f=format l=snapshot O=target-format o=options s=size U=force-share",
    "rebase": "f=format t=cache c=compress b=backing B=backing-format F=backing-format T=backing-cache "
    "u=backing-unsafe",
    "resize": "f=format q=quiet",
    "snapshot": "f=format l=list c=create a=apply d=delete U=force-share q=quiet",
}


def command(name: str) -> Command:
    found = importlib.import_module(COMMANDS[name]).COMMAND
    assert isinstance(found, Command)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_option_has_the_long_name_that_qemu_gave_it(name: str) -> None:
    parsed = command(name)
    for pair in NAMES[name].split():
        letter, _, long = pair.partition("=")
        flag = next(flag for flag in parsed.flags if letter in flag.names)
        assert long in flag.names
        if flag.check is None and name != "resize":
            value = ["x"] if flag.value and not flag.optional else []
            assert parsed.parse([f"-{letter}", *value]).given == parsed.parse([f"--{long}", *value]).given


def test_what_abbreviated_an_option_of_7_2_still_does() -> None:
    assert command("convert").parse(["--b", "a", "b"]).has("bitmaps")
    assert command("map").parse(["--s", "1", "a"]).get("start") == "1"
    assert command("convert").parse(["--ra", "1M", "a", "b"]).get("rate") == "1M"
    with pytest.raises(UsageError):
        command("create").parse(["--ba", "x"])


def test_the_size_may_come_before_a_long_option(tmp_path: Path) -> None:
    make(tmp_path / "a", 4 << 20)
    assert main(["resize", "-q", str(tmp_path / "a"), "1M", "--shrink"], "qemu-img") == 0
    with graph.open(str(tmp_path / "a"), "qcow2") as node:
        assert node.length == 1 << 20


def test_snapshots_are_listed_where_nothing_else_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "a", 1 << 20)
    assert main(["snapshot", "-f", "qcow2", "-c", "one", str(tmp_path / "a")], "qemu-img") == 0
    assert main(["snapshot", str(tmp_path / "a")], "qemu-img") == 0
    assert "one" in capsys.readouterr().out


@pytest.mark.parametrize("options", ["", "extended_l2=on", "cluster_size=4k,compression_type=zstd"])
def test_rebase_compresses_what_it_copies(tmp_path: Path, options: str) -> None:
    size = (1 << 20) + 512
    content = b"".join(bytes([at % 251 + 1]) * 512 for at in range(size // 512))
    (tmp_path / "old").write_bytes(content)
    make(tmp_path / "a", size, options=options, backing=tmp_path / "old")
    images.write(tmp_path / "a", "qcow2", {70000: b"its own"})
    with graph.open(str(tmp_path / "a"), "qcow2") as node:
        content = bytes(node.read(0, size))
    assert main(["rebase", "-c", "-f", "qcow2", "-b", "", str(tmp_path / "a")], "qemu-img") == 0
    with graph.open(str(tmp_path / "a"), "qcow2") as node:
        assert node.read(0, node.length) == content
        statuses = {extent.status for extent in node.extents()}
    assert any(status & Status.COMPRESSED for status in statuses)
    assert main(["check", "-q", str(tmp_path / "a")], "qemu-img") == 0


def test_rebase_refuses_to_compress_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(bytes(512))
    assert main(["rebase", "-c", "-f", "raw", "-b", "", str(tmp_path / "a")], "qemu-img") == 1
    assert "Compression not supported for this file format" in capsys.readouterr().err


def test_all_bitmaps_go_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "a")
    make(tmp_path / "a", 1 << 20)
    for name in ("one", "two"):
        assert main(["bitmap", "--add", path, name], "qemu-img") == 0
    assert main(["bitmap", "--remove-all", "--add", path], "qemu-img") == 1
    assert main(["bitmap", "--remove-all", path, "one"], "qemu-img") == 1
    assert main(["bitmap", "--remove-all", path], "qemu-img") == 0
    with graph.open(path, "qcow2") as node:
        assert node.driver.bitmaps() == []  # type: ignore[attr-defined]
    assert main(["check", "-q", path], "qemu-img") == 0
    (tmp_path / "raw").write_bytes(bytes(512))
    assert main(["bitmap", "--remove-all", "-f", "raw", str(tmp_path / "raw")], "qemu-img") == 1


def test_info_shows_limits_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", 1 << 20)
    assert main(["info", "--output=json", str(tmp_path / "a")], "qemu-img") == 0
    assert "limits" not in json.loads(capsys.readouterr().out)
    assert main(["info", "--limits", "--output=json", str(tmp_path / "a")], "qemu-img") == 0
    limits = json.loads(capsys.readouterr().out)["limits"]
    assert (limits["request-alignment"], limits["discard-alignment"], limits["max-iov"]) == (1, 65536, 1024)
    assert main(["info", "--limits", str(tmp_path / "a")], "qemu-img") == 0
    assert "Block limits:\n" in capsys.readouterr().out


def test_map_tells_compressed_clusters_where_the_output_is_that_of_a_later_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").write_bytes(b"x" * 65536 + bytes(65536))
    path = str(tmp_path / "a")
    assert main(["convert", "-c", "-f", "raw", "-O", "qcow2", str(tmp_path / "raw"), path], "qemu-img") == 0
    assert main(["map", "--output=json", path], "qemu-img") == 0
    assert "compressed" not in capsys.readouterr().out
    monkeypatch.setenv("HOSTEL_QEMU_VERSION", "8.2")
    assert main(["map", "--output=json", path], "qemu-img") == 0
    assert [entry["compressed"] for entry in json.loads(capsys.readouterr().out)] == [True, False]
    monkeypatch.setenv("HOSTEL_QEMU_VERSION", "8")
    assert main(["map", "--output=json", path], "qemu-img") == 1
    assert "is no version of QEMU" in capsys.readouterr().err


def test_info_tells_of_the_nodes_below_where_the_output_is_that_of_a_later_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "a", 1 << 20)
    path = str(tmp_path / "a")
    assert main(["info", path], "qemu-img") == 0
    assert "Child node" not in capsys.readouterr().out
    monkeypatch.setenv("HOSTEL_QEMU_VERSION", "8.0")
    assert main(["info", path], "qemu-img") == 0
    length = -(-(tmp_path / "a").stat().st_size // 512) * 512
    lines = capsys.readouterr().out.partition("Child node '/file':\n")[2].splitlines()
    assert lines[:2] == [f"    filename: {path}", "    protocol type: file"]
    assert lines[2].endswith(f"({length} bytes)")
    assert lines[3].startswith("    disk size: ")
    assert main(["info", "--output=json", path], "qemu-img") == 0
    text = capsys.readouterr().out
    assert text.startswith('{\n    "children": [\n        {\n            "name": "file",\n            "info": {\n')
    below = json.loads(text)["children"][0]["info"]
    assert below.pop("actual-size") > 0
    assert below == {
        "children": [],
        "virtual-size": length,
        "filename": path,
        "format": "file",
        "format-specific": {"type": "file", "data": {}},
        "dirty-flag": False,
    }
    options = f"driver=blkdebug,image.driver=qcow2,image.file.driver=file,image.file.filename={path}"
    assert main(["info", "--image-opts", options], "qemu-img") == 0
    text = capsys.readouterr().out
    assert "Child node '/image':\n    image: " in text
    assert "    Child node '/image/file':\n        filename: " in text


def test_dd_tells_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_bytes(b"x" * (5 << 20))
    assert main(["dd", "--progress=plain", f"if={tmp_path / 'a'}", f"of={tmp_path / 'b'}"], "qemu-img") == 0
    assert capsys.readouterr().err.endswith("    (40.00/100%)\n    (80.00/100%)\n    (100.00/100%)\n")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
