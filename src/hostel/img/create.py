"""Create an image: settle its options, then lay it out."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple, cast

from hostel.block import creating, graph, registry
from hostel.block import filename as names
from hostel.block.composing import Composing, Surroundings
from hostel.block.driver import WRITEBACK, Cache
from hostel.block.node import BlockNode
from hostel.block.options import Given, Kind, Option, OptionError, Options, Value
from hostel.block.powers import Creatable, Preallocation
from hostel.errors import BlockError, UnknownFormat, UnsupportedFeature, UntrustedReference
from hostel.img.files import Identity, files, holds_nothing, host_path, identity, is_device, removed_on_failure
from hostel.units import INT64_MAX, SECTOR

_DETACHED: Final = "detached-header"
_SAME_FILE: Final = "Error: Trying to create an image with the same filename as the backing file"


class Plan(NamedTuple):
    """An image that can be created.

    Attributes:
        declared: the options that the format and the protocol take.
        given: those that were given, converted; ``size`` always is, but of a detached header.
        words: how they were written; of a switch QEMU repeats that.
    """

    filename: str
    format: str
    driver: Creatable
    declared: Options
    given: Mapping[str, Value]
    words: Mapping[str, str] = {}

    @property
    def size(self) -> int:
        """The virtual size in bytes; 0 of what has none."""
        return int(self.given.get("size", 0))

    @property
    def is_header(self) -> bool:
        """Whether it is only the header of an image whose data lies in another file."""
        return self.given.get(_DETACHED) is True

    def values(self) -> dict[str, Value]:
        """The given options and the defaults of the others."""
        values = {option.name: option.convert(option.default) for option in self.declared if option.default is not None}
        return values | dict(self.given)

    @property
    def is_unformatted(self) -> bool:
        """Whether it has the disk's bytes and nothing else."""
        return self.format == "raw" or self.format not in registry.FORMATS

    def protocol_values(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Which of an image's options are for the protocol: raw has none of its own, and other formats keep theirs."""
        own = () if self.is_unformatted else self.driver.create_options
        return {name: value for name, value in values.items() if name not in own}

    def secrets(self) -> dict[str, Value]:
        """The options that the image must be opened with, once it is there: names of secrets."""
        return {name: value for name, value in self.given.items() if name.endswith("key-secret")}

    def describe(self) -> str:
        """The options as QEMU prints them while it creates an image."""
        shown = (_shown(option, self.given.get(option.name), self.words) for option in self.declared)
        return " ".join(filter(None, shown))


def _shown(option: Option, value: Value | None, words: Mapping[str, str]) -> str | None:
    if value is None:
        return None if option.default is None else f"{option.name}={option.default}"
    if option.kind is Kind.BOOL:
        return f"{option.name}={words.get(option.name, 'on' if value else 'off')}"
    if option.kind is not Kind.STRING:
        # QEMU prints its 64 bits with a sign.
        return f"{option.name}={int(value) - (2**64 if int(value) > INT64_MAX else 0)}"
    return f"{option.name}={str(value).replace(',', ',,')}"


def creatable(format: str) -> Creatable:
    """The driver of a format that images can be created in.

    Raises:
        UnknownFormat: there is no such format.
        UnsupportedFeature: the format cannot be created.
    """
    if format in registry.FILES or format in registry.PROTOCOLS:
        from hostel.img.unformatted import Unformatted

        return cast("Creatable", Unformatted(format))  # an object with the powers of a class
    if not registry.is_driver(format):
        raise UnknownFormat(f"Unknown file format '{format}'")
    driver = registry.format_driver(format) if format in registry.FORMATS else None
    if not isinstance(driver, Creatable):
        raise UnsupportedFeature(f"Format driver '{format}' does not support image creation")
    return driver


def convert(declared: Options, given: Iterable[Given]) -> dict[str, Value]:
    """Convert given options, in the order in which they were given and without defaults.

    Raises:
        OptionError: an unknown name or a bad value.
    """
    values: dict[str, Value] = {}
    for name, text, _ in given:
        if name == "id":
            continue
        if name not in declared:
            raise OptionError(f"Invalid parameter '{name}'")
        values[name] = declared[name].convert(text)
    return values


def plan(
    filename: str,
    format: str,
    size: int | None = None,
    *,
    given: Iterable[Given] = (),
    backing: str | None = None,
    backing_format: str | None = None,
    open_backing: bool = True,
) -> Plan:
    """Settle an image's options; nothing is written.

    Args:
        filename: where it is to lie.
        format: its format.
        size: bytes; None where the options or the backing file say it.
        given: options as written.
        backing: the backing file, relative to the image.
        backing_format: its format, which must be named here or in the options.
        open_backing: see whether the backing file can be opened, and take the size from it.

    Raises:
        BlockError: with QEMU's text.
    """
    driver = creatable(format)
    declared = creating.creation_options(driver, filename)
    given = list(given)
    values = convert(declared, given)
    if "size" in values and size is not None:
        raise OptionError("The image size must be specified only once")
    if size is not None:
        values["size"] = size
    set_backing(values, declared, format, backing, backing_format)
    if "backing_file" in values:
        _settle_backing(filename, values, open_backing=open_backing)
    if "size" not in values and values.get(_DETACHED) is not True:
        raise OptionError("Image creation needs a size parameter")
    return Plan(filename, format, driver, declared, values, {name: text for name, text, _ in given})


def set_backing(
    values: dict[str, Value], declared: Options, format: str, backing: str | None, backing_format: str | None
) -> None:
    """Put a backing file and its format among an image's options, where they were named apart from them.

    Raises:
        OptionError: images of this format have no backing file.
    """
    for name, value, what in (
        ("backing_file", backing, "Backing file"),
        ("backing_fmt", backing_format, "Backing file format"),
    ):
        if value is None:
            continue
        if name not in declared:
            raise OptionError(f"{what} not supported for file format '{format}'")
        values[name] = value


def _settle_backing(filename: str, values: dict[str, Value], *, open_backing: bool) -> None:
    backing = str(values["backing_file"])
    if backing == filename:
        raise OptionError(_SAME_FILE)
    if not backing:
        raise OptionError("Expected backing file name, got empty string")
    format = values.get("backing_fmt")
    data_file = str(values.get("data_file", ""))
    if not open_backing:
        if format is None:
            raise OptionError("Backing file specified without backing format")
        if (found := identity(data_file)) is not None and found == identity(names.resolve(backing, filename)):
            raise OptionError(_part_of_backing(data_file))
        return
    try:
        # Whoever uses the backing file goes on using it: only its size and format are wanted.
        node = graph.open(
            names.resolve(backing, filename), None if format is None else str(format), no_io=True, force_share=True
        )
    except BlockError as error:
        error.hint = (error.hint + "\n" if error.hint else "") + "Could not open backing image."
        raise
    with node:
        below = set(files(node))
        if identity(filename) in below:
            raise OptionError(_SAME_FILE)
        if identity(data_file) in below:
            raise OptionError(_part_of_backing(data_file))
        if format is None:
            raise OptionError(
                "Backing file specified without backing format", hint=f"Detected format of {node.format}."
            )
        values.setdefault("size", node.length)


def _part_of_backing(name: str) -> str:
    return f"'{name}' is the backing file's, and cannot become a part of the image"


def create(plan: Plan, *, cache: Cache = WRITEBACK, refuse: Callable[[str], None] | None = None) -> list[str]:
    """Create the image; when that fails, files that were not there before, or held nothing, are removed.

    Args:
        plan: what to create.
        cache: the cache mode.
        refuse: called with the name of each file beside the image's own, before it is made; may raise.

    Returns:
        The files that were made beside the image's own, and were not there before.

    Raises:
        BlockError: with QEMU's text.
        OSError: the host's own errors while writing.
    """
    values = plan.values()
    size = -(-plan.size // SECTOR) * SECTOR
    held_nothing = holds_nothing(plan.filename)
    around = _Around(plan, values, cache, refuse)
    data_file = _settle_data_file(plan, values, refuse)
    held_no_data = holds_nothing(data_file)
    with _reported_size(plan):
        with removed_on_failure(plan.filename, held_nothing):
            plan.driver.check_creation(size, values)
        with contextlib.ExitStack() as held:
            # What holds data is emptied when everything else is there; QEMU's order where nothing can be lost.
            if not (held_nothing and held_no_data):
                _require_room(plan, data_file or plan.filename, size, values)
            if not held_nothing:
                held.enter_context(_held_data_file(data_file))
                around.check()
            file = held.enter_context(_new_file(plan, values, cache))
            held.enter_context(removed_on_failure(plan.filename, held_nothing))
            if held_nothing:
                held.enter_context(_held_data_file(data_file))
            with around:
                if isinstance(plan.driver, Composing):
                    plan.driver.compose(file, size, values, around)
                else:
                    plan.driver.create(file, size, values)
                file.flush()
        if data_file:
            with removed_on_failure(plan.filename, held_nothing), removed_on_failure(data_file, held_no_data):
                _attach_data_file(plan, size, values)
            around.made += [data_file] * held_no_data
    return around.made


def check(plan: Plan) -> None:
    """Refuse what the format cannot have; nothing is touched.

    Raises:
        BlockError: with QEMU's text.
    """
    with _reported_size(plan):
        plan.driver.check_creation(-(-plan.size // SECTOR) * SECTOR, plan.values())


@contextlib.contextmanager
def _reported_size(plan: Plan) -> Iterator[None]:
    try:
        yield
    except BlockError as error:
        if error.errno == errno.EFBIG:
            raise _too_large(plan, error.hint) from None
        raise


def _require_room(plan: Plan, name: str, size: int, values: Mapping[str, Value]) -> None:
    """Refuse a size that the host has no room for: nobody knows before a file is tried to be given it.

    Args:
        plan: what is created.
        name: the file that the disk's bytes will lie in, which keeps what it holds.
        size: bytes.
        values: the options.

    Raises:
        BlockError: the host refuses.
    """
    is_reserved = values.get("preallocation") in ("falloc", "full")  # of which the latter takes time
    mode = Preallocation.FALLOC if is_reserved else Preallocation.OFF
    takes_all = plan.is_unformatted or plan.format == "luks" or (plan.format == "qcow2" and is_reserved)
    path = host_path(name)
    if path is None or is_device(path) or not takes_all:
        return
    is_there = os.path.lexists(path)
    with creating.create(name, emptied=False) as file:
        held = file.length
        try:
            if size > held:
                file.resize(size, mode)
        except OSError as error:
            # Zeroes can be written also where the host cannot reserve space.
            if values.get("preallocation") != "full" or error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        finally:
            file.resize(held)
            if not is_there:
                os.unlink(path)


def _new_file(plan: Plan, values: Mapping[str, Value], cache: Cache) -> BlockNode:
    """The file that an image is laid out in."""
    options = plan.protocol_values(values)
    if plan.format in registry.FORMATS:
        return creating.create(plan.filename, cache=cache, options=options)
    from hostel.img.unformatted import Unformatted

    assert isinstance(plan.driver, Unformatted)
    return plan.driver.prepare(plan.filename, cache, options)


class _Around(Surroundings):
    """What may be created and opened for a new image; when that fails, what was made is taken away again.

    Attributes:
        made: names of the files that were not there before.
    """

    def __init__(
        self, plan: Plan, values: Mapping[str, Value], cache: Cache, refuse: Callable[[str], None] | None
    ) -> None:
        self._plan = plan
        self._values = values
        self._cache = cache
        self._refuse = refuse
        self._below: set[Identity] = set()
        self.made: list[str] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            for name in self.made:
                with contextlib.suppress(OSError):
                    os.unlink(name)

    def check(self) -> None:
        """See that what the image needs can be made and opened, before it takes the place of what is there.

        Raises:
            BlockError: something cannot.
        """
        path, driver = host_path(self._plan.filename), self._plan.driver
        if path is None or not isinstance(driver, Composing):
            return
        if "backing_file" in self._plan.given:
            self.backing().close()
        for name in driver.parts(path, self._plan.size, self._values):
            name = names.of_path(name)
            self._require_free(name)
            is_there = os.path.lexists(name)
            creating.create(f"file:{name}", emptied=False).close()
            if not is_there:
                os.unlink(name)

    def new_file(self, name: str) -> BlockNode:
        """Create a file beside the image's own."""
        is_path = registry.protocol_name(self._plan.filename) == "file"
        if is_path:
            # Without the prefix that may have stood before the image's own name, a path may look like a protocol.
            name = names.of_path(name)
        self._require_free(name)
        held_nothing = holds_nothing(name)
        options = self._plan.protocol_values(self._values)
        node = creating.create(f"file:{name}" if is_path else name, cache=self._cache, options=options)
        if held_nothing:
            self.made.append(name)
        return node

    def _require_free(self, name: str) -> None:
        """Refuse a name for a file beside the image's own, which is that of what is read."""
        if self._refuse is not None:
            self._refuse(name)
        if identity(name) in self._below:
            raise OptionError(_part_of_backing(name))

    def backing(self) -> BlockNode:
        """Open the backing file."""
        name = names.resolve(str(self._values["backing_file"]), self._plan.filename)
        format = self._values.get("backing_fmt")
        node = graph.open(name, None if format is None else str(format), no_backing=True, no_io=True, force_share=True)
        self._below.update(files(node))
        return node


def _settle_data_file(plan: Plan, values: dict[str, Value], refuse: Callable[[str], None] | None) -> str:
    """The path of an image's external data file, which is what the image records; empty where it has none.

    Raises:
        BlockError: the name cannot be followed, or the image's data would be written over something else.
    """
    if "data_file" not in values:
        return ""
    given = str(values["data_file"])
    path = host_path(given)
    if path is None:
        creating.creation(given)
        raise UntrustedReference(f"Could not open '{given}': data-file must be a plain path")
    if not path:
        raise BlockError("Could not create '': No such file or directory", errno=errno.ENOENT)
    if refuse is not None:
        refuse(given)
    paths = {os.path.realpath(each.removeprefix("file:")) for each in (given, plan.filename)}
    if len(paths) == 1 or (identity(given) is not None and identity(given) == identity(plan.filename)):
        raise OptionError(f"'{given}' is the image itself, and cannot hold its data")
    # Behind the prefix may stand what looks like one itself.
    values["data_file"] = path = names.of_path(path)
    return path


@contextlib.contextmanager
def _held_data_file(path: str) -> Iterator[None]:
    """Make an image's external data file, or keep others off the one that is there, which is emptied at the end."""
    if not path:
        yield
        return
    held_nothing = holds_nothing(path)
    with creating.create(path, emptied=False) as node, removed_on_failure(path, held_nothing):
        yield
        if not is_device(path):
            node.resize(0)


def _attach_data_file(plan: Plan, size: int, values: Mapping[str, Value]) -> None:
    """Create an image's external data file, and give the image the size and the preallocation that was asked for."""
    mode = Preallocation(str(values.get("preallocation", "off")))
    if values.get("data_file_raw") and mode is Preallocation.OFF:
        mode = Preallocation.METADATA  # without a mapping, the tables would say otherwise than the file
    creating.create(str(values["data_file"])).close()
    with graph.open(plan.filename, plan.format, read_only=False, no_backing=True, options=plan.secrets()) as node:
        node.resize(size, mode)


def _too_large(plan: Plan, hint: str | None) -> BlockError:
    fix = " (try using a larger cluster size)" if plan.values().get("cluster_size") else ""
    message = f"The image size is too large for file format '{plan.format}'{fix}"
    return BlockError(message, errno=errno.EFBIG, hint=hint)
