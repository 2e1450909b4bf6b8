"""qemu-img map beside the real one."""

from __future__ import annotations

import pytest

from support.twins import Twins

pytestmark = [pytest.mark.requires_tool("qemu-img"), pytest.mark.requires_tool("qemu-io")]


def in_every_form(twins: Twins, name: str, *windows: str) -> None:
    for window in ("", *windows):
        twins.same(f"map {window} {name}")
        twins.same(f"map --output=json {window} {name}")


@pytest.mark.parametrize("data", [b"", b"12345", b"x" * 512, bytes(5000), b"y" * 70_000])
def test_raw_images_show_where_their_file_ends(twins: Twins, data: bytes) -> None:
    twins.write("a", data)
    in_every_form(twins, "-f raw a", "-s 2", "-s 2 -l 2", "-s 600", "--max-length=0")


def test_holes_of_raw_images_are_zeroes(twins: Twins) -> None:
    twins.truncate("a", 1 << 20)
    twins.write("a", b"1" * 5000, 500_000)
    in_every_form(twins, "-f raw a", "-s 100k -l 400k")


def test_windows_of_raw_images_are_moved(twins: Twins) -> None:
    twins.write("a", b"x" * 8192)
    in_every_form(twins, "--image-opts driver=raw,offset=512,size=1024,file.filename=a")
    twins.write("b", b"x" * 70_000)
    in_every_form(twins, "--image-opts driver=raw,file.driver=raw,file.offset=512,file.file.filename=b")


@pytest.mark.parametrize(
    "name",
    [
        "driver=throttle,throttle-group=g,file.driver=raw,file.file.filename=a",
        "driver=preallocate,file.driver=raw,file.file.filename=a",
        "driver=raw,file.driver=throttle,file.throttle-group=g,file.file.driver=raw,file.file.file.filename=a",
        "driver=raw,offset=512,file.driver=blkdebug,file.image.driver=raw,file.image.file.filename=a",
    ],
)
def test_filters_do_not_hide_where_a_raw_image_ends(twins: Twins, name: str) -> None:
    twins.write("a", b"x" * 70_000)
    twins.same(f"map --output=json --object throttle-group,id=g --image-opts {name}")


@pytest.mark.parametrize("data", [b"", b"12345", bytes(5000), b"x" * 4096 + bytes(65_904), b"y" * 70_000])
@pytest.mark.parametrize(
    "name",
    [
        "driver=file,filename=a",
        "driver=file,filename=a,cache.direct=on",
        "driver=throttle,throttle-group=g,file.driver=file,file.filename=a",
        "driver=blkdebug,image.driver=file,image.filename=a",
        "driver=preallocate,file.driver=file,file.filename=a",
        "driver=copy-on-read,file.driver=file,file.filename=a",
        "driver=qcow2,file.filename=overlay,backing.driver=file,backing.filename=a",
        "driver=qcow2,file.filename=overlay,backing.driver=throttle,backing.throttle-group=g,"
        "backing.file.driver=file,backing.file.filename=a",
    ],
)
def test_a_file_without_a_format_has_whole_sectors(twins: Twins, name: str, data: bytes) -> None:
    twins.write("a", data)
    twins.prepare("qemu-img create -q -f qcow2 overlay 1M")
    opened = f"--object throttle-group,id=g --image-opts {name}"
    in_every_form(twins, opened, "-s 2", "-s 69000 -l 1050", "-s 70000", "-s 70100 -l 30", "-s 70144")


@pytest.mark.parametrize("window", ["", "offset=4096,"])
@pytest.mark.parametrize(
    "filtering", ["throttle,file.throttle-group=g,file.file", "blkdebug,file.image", "preallocate,file.file"]
)
@pytest.mark.parametrize(
    "image", [".filename=plain", ".driver=qcow2,{0}.file.filename=stored", ".driver=vmdk,{0}.file.filename=flat"]
)
def test_a_filter_is_not_where_the_data_is(twins: Twins, window: str, filtering: str, image: str) -> None:
    twins.write("plain", b"d" * 70_000 + bytes(200_000))
    twins.prepare("qemu-img convert -f raw -O qcow2 plain stored")
    twins.prepare("qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat plain flat")
    child = filtering.split(",")[-1]
    name = f"driver=raw,{window}file.driver={filtering}{image.format(child)}"
    in_every_form(twins, f"--object throttle-group,id=g --image-opts {name}")


def test_windows_of_images_show_where_those_hold_it(twins: Twins) -> None:
    twins.write("plain", b"d" * (1 << 20))
    twins.prepare("qemu-img convert -f raw -O qcow2 plain stored")
    twins.prepare("qemu-img convert -c -f raw -O qcow2 plain packed")
    for image in ("driver=qcow2,file.file.filename=stored", "driver=qcow2,file.file.filename=packed",
                  "driver=raw,file.offset=512,file.file.filename=plain"):  # fmt: skip
        for output in ("human", "json"):
            twins.same(f"map --output={output} --image-opts driver=raw,offset=93696,file.{image}")


@pytest.mark.parametrize(
    ("way", "place"), [("", "file."), ("throttle,file.throttle-group=g,file.file.driver=", "file.file.")]
)
@pytest.mark.parametrize("compressed", [False, True])
def test_an_overlay_below_a_raw_image_has_its_own_clusters_where_they_are(
    twins: Twins, way: str, place: str, compressed: bool
) -> None:
    """What lies below the overlay our map shows too; QEMU's knows nothing of it."""
    twins.write("base", b"d" * 400_000)
    twins.prepare("qemu-img create -q -f qcow2 -b base -F raw top 512k")
    twins.prepare("qemu-io -c 'write -q -P 1 64k 64k' -c 'write -q -z 128k 64k' top")
    if compressed:
        twins.prepare("qemu-io -c 'write -q -c -P 1 192k 64k' top")
    image = f"driver=raw,file.driver={way}qcow2,{place}file.filename=top"
    part = f"-s 64k -l {192 if compressed else 128}k --object throttle-group,id=g --image-opts {image}"
    for output in ("human", "json"):
        twins.same(f"map --output={output} {part}")


def test_what_is_encrypted_is_read_by_its_own_format_also_through_a_window(twins: Twins) -> None:
    secret = "--object secret,id=s,data=x"
    twins.prepare(
        f"qemu-img create -q {secret} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 a 1M"
    )
    image = "driver=qcow2,{0}encrypt.key-secret=s,{0}file.filename=a"
    twins.prepare(f"qemu-io {secret} --image-opts {image.format('')} -c 'write -q -P 3 0 1M'")
    opened = f"{secret} --image-opts driver=raw,offset=4k,file.{image.format('file.')}"
    twins.same(f"map {opened}")
    twins.same(f"convert -O raw {opened} read")
    assert (twins.ours / "read").read_bytes() == (twins.real / "read").read_bytes() == b"\3" * ((1 << 20) - 4096)


@pytest.mark.parametrize("reading", ["quorum", "fifo"])
def test_copies_of_a_quorum_are_as_long_in_whole_sectors(twins: Twins, reading: str) -> None:
    twins.write("a", b"x" * 70_000)
    twins.write("b", b"x" * 70_144)
    twins.write("c", b"x" * 70_145)
    quorum = f"driver=quorum,vote-threshold=1,read-pattern={reading},children.0.driver=file,children.0.filename=a"
    opened = f"--image-opts {quorum},children.1.driver=file,children.1.filename="
    in_every_form(twins, f"{opened}b", "-s 69000")
    twins.same(f"convert -O raw {opened}b read")
    assert (twins.ours / "read").stat().st_size == (twins.real / "read").stat().st_size == 70_144
    assert (twins.ours / "read").read_bytes() == (twins.real / "read").read_bytes()
    words = f"map {opened}c".split()
    expected, found = twins.run_real(words), twins.run_ours(words)
    assert found.code == expected.code == 1
    assert found.err == f"{expected.err}The copies have different sizes: 70144, 70656 bytes.\n"


def test_data_zeroes_and_nothing_are_told_apart(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-io -c 'write 64k 128k' -c 'write -z 256k 64k' -c 'write -z 128k 64k' -c 'write 500k 1k' a")
    in_every_form(twins, "a", "-s 100000 -l 200000", "-s 1M", "-s 2M")


def test_very_many_runs_are_told_alike(twins: Twins) -> None:
    # More than 64 Ki entries of L2 tables, and version 2, where a discarded cluster has no entry.
    twins.prepare("qemu-img create -q -f qcow2 -o cluster_size=512,compat=0.10 a 40M")
    holes = " ".join(f"-c 'discard {at * 512} 512'" for at in range(1, 3000, 3))
    twins.prepare(f"qemu-io -c 'write 1M 38M' {holes} -c 'discard 10M 3M' a")
    in_every_form(twins, "a")


def test_layers_are_told_apart(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    twins.prepare("qemu-io -c 'write 64k 128k' -c 'write -z 192k 64k' -c 'write 320k 1k' a")
    twins.prepare("qemu-img create -q -f qcow2 -b a -F qcow2 b 2M")
    twins.prepare("qemu-io -c 'write 128k 64k' -c 'write -z 0 64k' -c 'write 1900k 3k' b")
    in_every_form(twins, "b", "-s 100000 -l 200000")


def test_a_raw_backing_file_shows_its_holes(twins: Twins) -> None:
    twins.truncate("a", 1 << 20)
    twins.write("a", b"1" * 131_072, 65_536)
    twins.prepare("qemu-img create -q -f qcow2 -b a -F raw b 2M")
    twins.prepare("qemu-io -c 'write 128k 64k' -c 'write -z 0 64k' -c 'write 1900k 3k' b")
    in_every_form(twins, "b")


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_preallocated_images_show_their_holes(twins: Twins, mode: str) -> None:
    twins.prepare(f"qemu-img create -q -f qcow2 -o preallocation={mode} a 4M")
    in_every_form(twins, "a")
    twins.prepare("qemu-io -c 'write 64k 128k' -c 'write 3M 5k' a")
    in_every_form(twins, "a")


def test_what_no_copy_of_a_quorum_holds_is_zeroes(twins: Twins) -> None:
    twins.write("base", b"x" * 65536 + bytes(65536))
    twins.prepare("qemu-img create -q -f qcow2 -b base -F raw a 1M")
    twins.prepare("qemu-io -c 'write 256k 64k' -c 'write -z 512k 64k' a")
    copies = ",".join(f"children.{index}.driver=qcow2,children.{index}.file.filename=a" for index in range(2))
    twins.same(f"map --output=json -U --image-opts driver=quorum,vote-threshold=1,{copies}")


def test_compressed_clusters_have_no_place(twins: Twins) -> None:
    twins.write("raw", b"spam" * 100_000)
    twins.prepare("qemu-img convert -f raw -O qcow2 -c raw a")
    twins.same("map --output=json a")
    assert twins.refused("map a").code == 1


def test_an_empty_image_is_one_empty_entry(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 0")
    in_every_form(twins, "a", "-s 5")


@pytest.mark.parametrize("size", [100, 200_000])
def test_truncated_images_are_refused_or_mapped_like_qemu(twins: Twins, size: int) -> None:
    twins.prepare("qemu-img create -q -f qcow2 a 1M")
    for folder in (twins.real, twins.ours):
        with (folder / "a").open("r+b") as file:
            file.truncate(size)
    twins.same("map a")


def test_subclusters_that_hold_nothing_have_their_place(twins: Twins) -> None:
    twins.prepare("qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=32k a 1M")
    for write in ("0 40k", "-z 4k 5k", "100k 3k", "-z 200k 4k"):
        twins.prepare(f"qemu-io -f qcow2 -c 'write -q {write}' a")
    twins.prepare("qemu-img create -q -f qcow2 -o extended_l2=on -b a -F qcow2 b")
    twins.prepare("qemu-io -f qcow2 -c 'write -q 4k 4k' -c 'write -q -z 130k 6k' -c 'write -q 900k 2k' b")
    for image in ("a", "b"):
        twins.same(f"map --output=json {image}")
        twins.same(f"map {image}")
    twins.prepare("qemu-img convert -O qcow2 -o extended_l2=on a c")
    twins.same("compare -s a c")
    twins.same("compare b a")


@pytest.mark.parametrize("options", ["", ",read-zeroes=on"])
@pytest.mark.parametrize(("prefix", "below"), [("", ""), ("driver=raw,", "file."), ("driver=raw,offset=512,", "file.")])
def test_what_keeps_nothing_has_no_place(twins: Twins, prefix: str, below: str, options: str) -> None:
    null = f"driver=null-co,size=1M{options}"
    name = prefix + ",".join(below + each for each in null.split(","))
    twins.same(f"map --image-opts {name}")
    twins.same(f"map --output=json --image-opts {name}")
