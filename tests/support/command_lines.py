"""Command lines of qemu-img at random, right and wrong ones: options, names, sizes and formats as people write them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

Pick = Callable[[random.Random], str]

# Commands of the real tools that make the images that the lines are about.
IMAGES: Final = (
    "qemu-img create -q -f raw raw 1M",
    "qemu-io -f raw -c 'write -q -P 3 64k 128k' raw",
    "qemu-img create -q -f raw odd 1000",
    "qemu-img create -q -f raw empty 0",
    "qemu-img create -q -f qcow2 q 2M",
    "qemu-io -f qcow2 -c 'write -q -P 1 0 128k' -c 'write -q -z 256k 64k' q",
    "qemu-img snapshot -c s1 q",
    "qemu-io -f qcow2 -c 'write -q -P 2 64k 192k' q",
    "qemu-img snapshot -c s2 q",
    "qemu-img bitmap --add q b0",
    "qemu-img bitmap --add --disable -g 32k q b1",
    "qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k v2 1M",
    "qemu-io -f qcow2 -c 'write -q -P 5 0 20k' v2",
    "qemu-img create -q -f qcow2 -b raw -F raw mid 1536k",
    "qemu-io -f qcow2 -c 'write -q -P 8 128k 64k' -c 'write -q -z 0 64k' mid",
    "qemu-img create -q -f qcow2 -b mid -F qcow2 top",
    "qemu-io -f qcow2 -c 'write -q -P 9 192k 64k' top",
    "qemu-img convert -c -O qcow2 q packed",
    "qemu-img create -q -u -f qcow2 -b gone -F qcow2 orphan 1M",
    "qemu-img create -q -f qcow2 -o data_file=data,data_file_raw=on apart 1M",
    *(f"qemu-img create -q -f {format} {format} 2M" for format in ("vmdk", "vdi", "qed", "qcow", "parallels")),
)
_NAMES: Final = (
    "raw", "odd", "empty", "q", "q", "v2", "mid", "top", "top", "packed", "apart", "vmdk", "vdi", "qed", "qcow",
    "parallels",
)  # fmt: skip
_BAD_NAMES: Final = (
    "", "missing", "missing/x", "orphan", "foo:bar", "file:q", "./a:b", "nbd:unix:none", "host_device:raw",
    "x" * 300, "y" * 5000, "json:", "json:{}", "json:{", "json:[1]", 'json:{"driver":}', 'json:{"driver":"qcow2"}',
    'json:{"driver":"foo"}', 'json:{"driver":"qcow2","file":{"driver":"file","filename":"q"}}',
    'json:{"file.filename":"top"}', "json:{'driver':'raw','file.filename':'raw'}",
)  # fmt: skip
_DESCRIPTIONS: Final = (
    "driver=qcow2,file.filename=q", "driver=raw,file.filename=raw", "file.filename=top", "driver=file,filename=raw",
    "raw", "driver=qcow2", "driver=foo,file.filename=q", "driver=qcow2,file.filename=q,foo=1", "=", "driver=", "",
    "driver=qcow2,file.filename=q,file.foo=1", "driver=raw,file.filename=raw,size=513",
    "driver=raw,file.filename=raw,size=x", "driver=qcow2,file.filename=missing", "driver=qcow2,file.filename=",
    "driver=qcow2,file.filename=raw", "driver=qcow2,file.filename=q,lazy-refcounts=maybe",
    "driver=qcow2,file.filename=q,l2-cache-size=x", "driver=qcow2,file.filename=q,cache.direct=foo",
    "driver=qcow2,file.filename=q,read-only=foo", "driver=qcow2,file.filename=q,discard=foo",
    "driver=qcow2,file.filename=q,detect-zeroes=unmap", "driver=qcow2,file.filename=q,node-name=1a",
    "driver=raw,file.driver=file,file.filename=raw,file.locking=foo",
    "driver=qcow2,file.driver=raw,file.file.filename=q", "driver=quorum", "driver=blkdebug",
    "driver=throttle,file.filename=raw",
)  # fmt: skip
_FORMATS: Final = (
    "qcow2",
    "qcow2",
    "raw",
    "vmdk",
    "vdi",
    "qed",
    "qcow",
    "parallels",
    "",
    "foo",
    "QCOW2",
    "luks",
    "cloop",
)
_CACHES: Final = ("none", "writeback", "writethrough", "unsafe", "directsync", "", "off", "NONE")
_SIZES: Final = (
    "1M", "512", "0", "64k", "1.5M", "2M", "1G", "100", "+1M", "+0", "0x10000", "", "-1", "1.5", "1e3", "1X",
    "1 M", "--1", "-0", ".5M", "0.1M", "1.M", "nan", "-", "0x", "1b", " 1M", "99999999999999999999", "1,5M",

)  # fmt: skip
# Of those that are taken, none that makes a command slow.
_BLOCKS: Final = ("64k", "1M", "4k", "0", "-1", "1X", "foo", "", "0x1000", "3G")
_RATES: Final = ("1G", "0", "-1", "foo", "", "1 G")
_LENGTHS: Final = ("1M", "3M", "512k", "+1M", "-512k", "+0", "0", "foo", "", "1.5M", "+-1", "1 M", "0x100000")
_NUMBERS: Final = ("1", "2", "4", "16", "", "-1", "foo", "1.5", "99999999999", "17", "1k", "+1", "1 ")
_OBJECTS: Final = (
    "secret,id=s,data=abc", "", "foo", "secret", "secret,id=s", "secret,id=1,data=a", "secret,id=s,file=missing",
    "secret,help", "iothread,id=t", "secret,data=x", "{}", "{", '{"qom-type":"secret","id":"s","data":1}',
    "throttle-group,id=t,x-iops-total=x",
)  # fmt: skip
_OPTIONS: Final = (
    "cluster_size=4k", "cluster_size=3k", "cluster_size=0", "cluster_size=foo", "cluster_size", "compat=0.10",
    "compat=1.1", "compat=2", "size=1M", "size=foo", "backing_file=mid", "backing_file=", "backing_file=missing",
    "backing_fmt=qcow2", "backing_fmt=foo", "encryption=off", "encrypt.format=foo", "encrypt.key-secret=s",
    "preallocation=metadata", "preallocation=foo", "lazy_refcounts=on", "lazy_refcounts=1", "nolazy_refcounts",
    "refcount_bits=1", "refcount_bits=3", "refcount_bits=x", "compression_type=zstd", "compression_type=foo",
    "extended_l2=on", "extended_l2=x", "subformat=foo", "adapter_type=lsilogic", "static=foo", "table_size=3",
    "foo=bar", "foo", "help", "", ",", "=", "foo=1,bar=2",
)  # fmt: skip
_AMENDMENTS: Final = (
    "compat=0.10", "compat=1.1", "compat=foo", "lazy_refcounts=on", "lazy_refcounts=off", "size=4M", "size=foo",
    "backing_fmt=raw", "refcount_bits=16", "refcount_bits=5", "data_file_raw=off", "cluster_size=64k",
    "cluster_size=4k", "foo=1", "", "help", "=", "preallocation=full", "compression_type=zstd", "extended_l2=on",
)  # fmt: skip
_SNAPSHOTS: Final = ("s1", "s2", "s3", "1", "2", "", "missing", "x" * 300, "name with space", "ünïcode")
_BITMAPS: Final = ("b0", "b1", "b2", "", "missing", "y" * 1023)
_LOADED: Final = (
    "snapshot.name=s1",
    "snapshot.id=1",
    "snapshot.id=9",
    "s1",
    "snapshot.foo=1",
    "missing",
    "snapshot.id=2,snapshot.name=s1",
)


class _Option(NamedTuple):
    """An option: its names, and what makes its value; nothing where it has none."""

    names: Sequence[str]
    value: Pick | None = None


def _of(values: Sequence[str]) -> Pick:
    return lambda rng: rng.choice(values)


def _list(values: Sequence[str]) -> Pick:
    return lambda rng: ",".join(rng.choice(values) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def _name(rng: random.Random) -> str:
    return rng.choice(_BAD_NAMES if rng.random() < 0.2 else _NAMES)


def _size(rng: random.Random) -> str:
    return rng.choice(_SIZES)


_IMAGE_OPTS: Final = _Option(("--image-opts",))
_SHARED: Final = _Option(("-U", "--force-share"))
_QUIET: Final = _Option(("-q",))
_OBJECT: Final = _Option(("--object",), _of(_OBJECTS))
_FORMAT: Final = _Option(("-f",), _of(_FORMATS))
_CACHE: Final = _Option(("-t",), _of(_CACHES))
_SOURCE_CACHE: Final = _Option(("-T",), _of(_CACHES))
_OUTPUT: Final = _Option(("--output",), _of(("json", "json", "human", "", "xml")))
_COMMON: Final = (_OBJECT, _IMAGE_OPTS, _FORMAT)
_COMMANDS: Final[dict[str, Sequence[_Option]]] = {
    "amend": (*_COMMON, _QUIET, _CACHE, _Option(("--force",)), _Option(("-o",), _list(_AMENDMENTS))),
    "bitmap": (
        *_COMMON,
        *(_Option((f"--{action}",)) for action in ("add", "remove", "clear", "enable", "disable")),
        _Option(("--merge",), _of(_BITMAPS)),
        _Option(("-b", "--source-file"), _name),
        _Option(("-g", "--granularity"), _size),
    ),
    "check": (
        *_COMMON,
        _QUIET,
        _OUTPUT,
        _SOURCE_CACHE,
        _SHARED,
        _Option(("-r", "--repair"), _of(("leaks", "all", "foo", ""))),
    ),
    "commit": (
        *_COMMON,
        _QUIET,
        _CACHE,
        _Option(("-b",), _of(("mid", "raw", "missing", ""))),
        _Option(("-d",)),
        _Option(("-r",), _of(_RATES)),
    ),
    "compare": (*_COMMON, _QUIET, _SOURCE_CACHE, _SHARED, _Option(("-F",), _of(_FORMATS)), _Option(("-s",))),
    "convert": (
        *_COMMON,
        _QUIET,
        _SOURCE_CACHE,
        _Option(("-O",), _of(_FORMATS)),
        _Option(("-o",), _list(_OPTIONS)),
        *(_Option((flag,)) for flag in ("-c", "-n", "--bitmaps", "--skip-broken-bitmaps", "--salvage", "-W")),
        _Option(("-S",), _size),
        _Option(("-r",), _of(_RATES)),
        _Option(("-m",), _of(_NUMBERS)),
        _Option(("-l",), _of(_LOADED)),
    ),
    "create": (
        _OBJECT,
        _QUIET,
        _FORMAT,
        _FORMAT,
        _Option(("-b",), _name),
        _Option(("-F",), _of(_FORMATS)),
        _Option(("-u",)),
        _Option(("-o",), _list(_OPTIONS)),
    ),
    "dd": (_OBJECT, _FORMAT, _SHARED, _Option(("-O",), _of(_FORMATS))),
    "info": (*_COMMON, _OUTPUT, _SHARED, _Option(("--backing-chain",))),
    "map": (
        *_COMMON,
        _OUTPUT,
        _SHARED,
        _Option(("-s", "--start-offset"), _size),
        _Option(("-l", "--max-length"), _size),
    ),
    "measure": (
        *_COMMON,
        _OUTPUT,
        _SHARED,
        _Option(("-O",), _of(_FORMATS)),
        _Option(("-o",), _list(_OPTIONS)),
        _Option(("--size",), _size),
        _Option(("-l",), _of(_LOADED)),
    ),
    "resize": (
        *_COMMON,
        _QUIET,
        _Option(("--shrink",)),
        _Option(("--preallocation",), _of(("off", "metadata", "full", "", "foo"))),
    ),
    "snapshot": (_OBJECT, _IMAGE_OPTS, _QUIET),
}
_ACTIONS: Final = ("-l", "-c", "-a", "-d")


def line(rng: random.Random) -> list[str]:
    """The words of one command line."""
    command = rng.choice(tuple(_COMMANDS))
    options = _COMMANDS[command]
    chosen = rng.sample(options, min(len(options), rng.choice((0, 1, 1, 2, 2, 3, 4))))
    if rng.random() < 0.7:
        chosen = [option for option in chosen if option is not _IMAGE_OPTS]
    words = [word for option in chosen for word in _spelt(option, rng)]
    if command == "snapshot":
        action = rng.choice(_ACTIONS)
        words += [action] if action == "-l" else [action, rng.choice(_SNAPSHOTS)]
    described = _IMAGE_OPTS in chosen and rng.random() < 0.9
    image = rng.choice(_DESCRIPTIONS) if described else _name(rng)
    operands = _operands(command, image, rng)
    if rng.random() < 0.05:
        operands = operands[:-1] if rng.random() < 0.5 else [*operands, "extra"]
    return [command, *words, *operands]


def _spelt(option: _Option, rng: random.Random) -> list[str]:
    name = rng.choice(option.names)
    value = None if option.value is None else option.value(rng)
    if value is None:
        return [name]
    if name.startswith("--"):
        return [f"{name}={value}"] if rng.random() < 0.5 else [name, value]
    return [name + value] if value and rng.random() < 0.3 else [name, value]


def _operands(command: str, image: str, rng: random.Random) -> list[str]:
    match command:
        case "bitmap":
            return [rng.choice(("q", "q", "v2", "raw", image)), rng.choice(_BITMAPS)]
        case "compare":
            return [image, rng.choice((image, _name(rng)))]
        case "convert":
            return [image, rng.choice(("out", "out", "out", "missing/x", ""))]
        case "create":
            return [
                rng.choice(("out", "out", "out", "missing/x", "", "foo:x")),
                *([_size(rng)] if rng.random() < 0.8 else []),
            ]
        case "dd":
            sizes = [f"{name}={rng.choice(_BLOCKS)}" for name in ("bs", "count", "skip") if rng.random() < 0.3]
            return [f"if={image}", *sizes, f"of={rng.choice(('out', 'out', 'missing/x', ''))}"]
        case "snapshot":
            return [rng.choice(("q", "q", "v2", "packed", "orphan", "vdi", "missing", "", "json:", "./a:b"))]
        case "resize":
            return [image, rng.choice(_LENGTHS)]
        case _:
            return [image]
