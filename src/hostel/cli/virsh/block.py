"""Domain management and monitoring: disks of running domains, and jobs on them."""

from __future__ import annotations

import re
import sys
import time
from typing import Final

from hostel.cli.options import UINT, Args, Command, data, flag, number, value
from hostel.cli.virsh import document
from hostel.cli.virsh.affect import THREE, affected, check
from hostel.cli.virsh.scaled import scaled
from hostel.cli.virsh.session import DOMAIN, CommandError, Session, failing, read_document
from hostel.drivers.base import DomainRef
from hostel.drivers.base.block import (
    BlockCommitFlag,
    BlockCopyFlag,
    BlockDriver,
    BlockJobAbortFlag,
    BlockJobInfo,
    BlockRebaseFlag,
    BlockResizeFlag,
)
from hostel.drivers.base.offered import offered
from hostel.drivers.events import BlockJobType
from hostel.errors import UsageError

_COMMITTED: Final = {
    "bytes": BlockCommitFlag.BANDWIDTH_BYTES,
    "shallow": BlockCommitFlag.SHALLOW,
    "delete": BlockCommitFlag.DELETE,
    "keep-relative": BlockCommitFlag.RELATIVE,
}
_COPIED: Final = {
    "shallow": BlockCopyFlag.SHALLOW,
    "reuse-external": BlockCopyFlag.REUSE_EXT,
    "transient-job": BlockCopyFlag.TRANSIENT_JOB,
    "synchronous-writes": BlockCopyFlag.SYNCHRONOUS_WRITES,
}
PATH = data("path", "the disk's name, or its source")
_MIB: Final = 1 << 20
_POLL: Final = 0.5  # seconds
_LABELS: Final = ("Unknown job", "Block Pull", "Block Copy", "Block Commit", "Active Block Commit", "Backup")
_BYTES: Final = ("total-bytes-sec", "read-bytes-sec", "write-bytes-sec")
_OPERATIONS: Final = ("total-iops-sec", "read-iops-sec", "write-iops-sec")


def blocks(session: Session, api: str) -> BlockDriver:
    """The driver as one that has calls about disks.

    Raises:
        VirtError: ``NO_SUPPORT``.
    """
    return offered(session.hypervisor, BlockDriver, api)


def _resize(session: Session, args: Args) -> None:
    size = scaled(args, "size", 1024) or 0
    flags = BlockResizeFlag.BYTES if size % 1024 else BlockResizeFlag.NONE
    domain = session.domain(args)
    with failing(f"Failed to resize block device '{args['path']}'"):
        driver = blocks(session, "virDomainBlockResize")
        driver.domain_block_resize(domain, args["path"], size if size % 1024 else size // 1024, flags)
    _say(session, f"Block device '{args['path']}' is resized")


def _say(session: Session, text: str) -> None:
    """Print for people, without the end of the line, which comes after each command."""
    if not session.output.quiet:
        session.output.text(text)


class _Wait:
    """Waiting for a job, showing how far it is."""

    def __init__(self, session: Session, domain: DomainRef, label: str, args: Args) -> None:
        self._session = session
        self._domain = domain
        self._disk = args["path"]
        self._label = label
        self._verbose = args.has("verbose")
        self._async = args.has("async")
        self._seconds = _timeout(args)

    def run(self) -> bool:
        """Wait until the job is ready or gone; False when it was given up."""
        driver = blocks(self._session, "virDomainGetBlockJobInfo")
        deadline = time.monotonic() + self._seconds if self._seconds else None
        last: BlockJobInfo | None = None
        while True:
            with failing(f"failed to query job for disk {self._disk}"):
                info = driver.domain_get_block_job_info(self._domain, self._disk)
            if info is None or (info.cur == info.end and info.type in (BlockJobType.COPY, BlockJobType.ACTIVE_COMMIT)):
                break
            if self._verbose and (last is None or info[2:] != last[2:]):
                progress(self._label, info.end - info.cur, info.end)
            last = info
            try:
                time.sleep(_POLL if deadline is None else max(0.0, min(_POLL, deadline - time.monotonic())))
                is_over = deadline is not None and time.monotonic() >= deadline
            except KeyboardInterrupt:
                is_over = True
            if is_over:
                with failing(f"failed to abort job for disk '{self._disk}'"):
                    flags = BlockJobAbortFlag.ASYNC if self._async else BlockJobAbortFlag.NONE
                    driver.domain_block_job_abort(self._domain, self._disk, flags)
                return False
        if self._verbose:
            progress(self._label, 0, 1)
        return True


def progress(label: str, remaining: int, total: int) -> None:
    """Draw how far something is over what was drawn before."""
    percent = 100 if not remaining else min(99, int(100.0 - remaining * 100.0 / total))
    sys.stdout.flush()
    sys.stderr.write(f"\r{label}: [{percent:3d} %]")
    sys.stderr.flush()


def _timeout(args: Args) -> int:
    seconds = args.number("timeout")
    if args.has("timeout") and not seconds:
        raise UsageError(f"Numeric value '{args.get('timeout')}' for <timeout> option is malformed or out of range")
    return seconds or 0


def _check_waiting(args: Args, waits: bool, others: str) -> None:
    for option in ("verbose", "async"):
        if args.has(option) and not waits:
            raise CommandError(f"--{option} requires at least one of --timeout, --wait, {others}")


def _pull(session: Session, args: Args) -> None:
    for option in ("verbose", "async"):
        if args.has(option) and not args.has("wait"):
            raise UsageError(f"Option --wait is required by option --{option}")
    flags = BlockRebaseFlag.RELATIVE if args.has("keep-relative") else BlockRebaseFlag.NONE
    flags |= BlockRebaseFlag.BANDWIDTH_BYTES if args.has("bytes") else BlockRebaseFlag.NONE
    bandwidth = _bandwidth(args)
    _timeout(args)
    domain = session.domain(args)
    driver = blocks(session, "virDomainBlockPull")
    driver.domain_block_rebase(domain, args["path"], args.get("base"), bandwidth, flags)
    if not args.has("wait"):
        _say(session, "Block Pull started")
    elif _Wait(session, domain, "Block Pull", args).run():
        _say(session, "\nPull complete")
    else:
        _give_up(session, "Pull")


def _give_up(session: Session, what: str) -> None:
    _say(session, f"\n{what} aborted")
    raise CommandError("")  # said already


def _bandwidth(args: Args) -> int:
    """As it is given in MiB a second, or in bytes with ``--bytes``; in the same unit where it has one of its own."""
    if not args.has("bandwidth"):
        return 0
    if _PLAIN.fullmatch(args.written("bandwidth")) and abs(int(args.written("bandwidth"))) < 1 << 64:
        return args.number("bandwidth") or 0
    found = scaled(args, "bandwidth", 1, called="--bandwidth") or 0
    return found if args.has("bytes") else found // _MIB


def _commit(session: Session, args: Args) -> None:
    args.exclude("pivot", "keep-overlay")
    ends = args.has("pivot") or args.has("keep-overlay")
    active = args.has("active") or ends
    bandwidth = _bandwidth(args)
    seconds = _timeout(args)  # read, and refused, in any case
    waits = args.has("wait") or ends or bool(seconds)
    _check_waiting(args, waits, "--pivot, or --keep-overlay")
    flags = args.flags(BlockCommitFlag.ACTIVE if active else BlockCommitFlag.NONE, _COMMITTED)
    domain = session.domain(args)
    driver = blocks(session, "virDomainBlockCommit")
    driver.domain_block_commit(domain, args["path"], args.get("base"), args.get("top"), bandwidth, flags)
    if not waits:
        _say(session, "Active Block Commit started" if active else "Block Commit started")
        return
    if not _Wait(session, domain, "Block commit", args).run():
        _give_up(session, "Commit")
    if args.has("pivot"):
        _end(session, domain, args, "pivot", "Successfully pivoted")
    elif args.has("keep-overlay"):
        _end(session, domain, args, "finish", "Commit complete, overlay image kept")
    else:
        _say(session, "\nNow in synchronized phase" if active else "\nCommit complete")


def _end(session: Session, domain: DomainRef, args: Args, verb: str, done: str) -> None:
    flags = BlockJobAbortFlag.PIVOT if verb == "pivot" else BlockJobAbortFlag.NONE
    flags |= BlockJobAbortFlag.ASYNC if args.has("async") else BlockJobAbortFlag.NONE
    with failing(f"failed to {verb} job for disk {args['path']}"):
        blocks(session, "virDomainBlockJobAbort").domain_block_job_abort(domain, args["path"], flags)
    _say(session, f"\n{done}")


def _copy(session: Session, args: Args) -> None:
    bandwidth = _bandwidth(args) * (1 if args.has("bytes") else _MIB)
    granularity, buffer = args.number("granularity", most=UINT) or 0, args.number("buf-size") or 0
    ends = args.has("pivot") or args.has("finish")
    seconds = _timeout(args)  # read, and refused, in any case
    waits = args.has("wait") or ends or bool(seconds)
    for one, other in (("dest", "xml"), ("format", "xml"), ("blockdev", "xml"), ("pivot", "finish")):
        args.exclude(one, other)
    if not args.has("dest") and not args.has("xml"):
        raise CommandError("need either --dest or --xml")
    _check_waiting(args, waits, "--pivot, or --finish")
    flags = args.flags(BlockCopyFlag.NONE, _COPIED)
    domain = session.domain(args)
    xml = read_document(args["xml"]) if args.has("xml") else _copy_xml(args)
    if args.has("print-xml"):
        session.output.line(xml)
        return
    driver = blocks(session, "virDomainBlockCopy")
    driver.domain_block_copy(domain, args["path"], xml, bandwidth, granularity, buffer, flags)
    if not waits:
        _say(session, "Block Copy started")
        return
    if not _Wait(session, domain, "Block Copy", args).run():
        _give_up(session, "Copy")
    if args.has("pivot"):
        _end(session, domain, args, "pivot", "Successfully pivoted")
    elif args.has("finish"):
        _end(session, domain, args, "finish", "Successfully copied")
    else:
        _say(session, "\nNow in mirroring phase")


def _copy_xml(args: Args) -> str:
    kind, name = ("block", "dev") if args.has("blockdev") else ("file", "file")
    inner = [document.empty("source", **{name: args["dest"]})]
    if (fmt := args.get("format")) is not None:
        inner.append(document.empty("driver", type=fmt))
    return document.nested("disk", *inner, type=kind)


def _job(session: Session, args: Args) -> None:
    for one, others in (
        ("raw", ("abort", "pivot", "async", "bandwidth")), ("info", ("abort", "pivot", "async", "bandwidth")),
        ("bytes", ("abort", "pivot", "async")),
    ):  # fmt: skip
        for other in others:
            args.exclude(one, other)
    domain, path = session.domain(args), args["path"]
    driver = blocks(session, "virDomainGetBlockJobInfo")
    if args.has("bandwidth"):
        speed = _bandwidth(args) * (1 if args.has("bytes") else _MIB)
        driver.domain_block_job_set_speed(domain, path, speed)
    elif args.has("abort") or args.has("pivot") or args.has("async"):
        flags = BlockJobAbortFlag.PIVOT if args.has("pivot") else BlockJobAbortFlag.NONE
        flags |= BlockJobAbortFlag.ASYNC if args.has("async") else BlockJobAbortFlag.NONE
        driver.domain_block_job_abort(domain, path, flags)
    else:
        _show_job(session, driver.domain_get_block_job_info(domain, path), args)


def _show_job(session: Session, info: BlockJobInfo | None, args: Args) -> None:
    if info is None:
        if not args.has("raw"):
            _say(session, f"No current block job for {args['path']}")
        return
    if args.has("raw"):
        speed = info.bandwidth if args.has("bytes") else -(-info.bandwidth // _MIB)
        session.output.text(f" type={_LABELS[info.type]}\n bandwidth={speed}\n cur={info.cur}\n end={info.end}\n")
        return
    progress(_LABELS[info.type], info.end - info.cur, info.end)
    limit = ""
    if info.bandwidth:
        amount, unit = pretty(info.bandwidth)
        limit = f"    Bandwidth limit: {info.bandwidth} bytes/s ({amount:.3f} {unit}/s)"
    session.output.line(limit)


def pretty(size: int) -> tuple[float, str]:
    """A number of bytes in the largest unit that it has one of."""
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return amount, units[0]


def _tune(session: Session, args: Args) -> None:
    check(args)
    domain, disk = session.domain(args), args["device"]
    limits: dict[str, int | str] = {}
    for name in (option.name for option in _LIMITS):
        if name == "group-name":
            if (group := args.get(name)) is not None:
                limits["group_name"] = group
        elif args.has(name):
            is_scaled = "-bytes-sec" in name and not name.endswith("-length")
            try:
                amount = scaled(args, name, 1) if is_scaled else args.number(name)
            except UsageError as error:
                raise CommandError(f"{error}\nUnable to parse integer parameter") from None
            limits[name.replace("-", "_")] = amount or 0
    driver = blocks(session, "virDomainSetBlockIoTune")
    if limits:
        with failing("Unable to change block I/O throttle"):
            driver.domain_set_block_io_tune(domain, disk, limits, affected(args))
        return
    with failing("Unable to get block I/O throttle parameters"):
        found = driver.domain_get_block_io_tune(domain, disk, affected(args))
    for limit, said in found.items():
        session.output.line(f"{limit:<15}: {said}")


def _threshold(session: Session, args: Args) -> None:
    threshold = scaled(args, "threshold", 1) or 0
    domain = session.domain(args)
    driver = blocks(session, "virDomainSetBlockThreshold")
    driver.domain_set_block_threshold(domain, args["dev"], threshold)


_LIMITS: Final = tuple(
    (number(name, text) if name != "group-name" else value(name, text))
    for name, text in (
        *((name, "bytes a second, such as 10M") for name in _BYTES),
        *((name, "operations a second") for name in _OPERATIONS),
        *((f"{name}-max", "bytes a second in a burst") for name in _BYTES),
        *((f"{name}-max", "operations a second in a burst") for name in _OPERATIONS),
        ("size-iops-sec", "how many bytes count as one operation"),
        ("group-name", "disks of one group share its limits"),
        *((f"{name}-max-length", "how many seconds a burst may last") for name in (*_BYTES, *_OPERATIONS)),
    )
)
_BANDWIDTH: Final = number("bandwidth", "limit in MiB a second")
_PLAIN: Final = re.compile(r"\s*[-+]?[0-9]+")
_TIMEOUT: Final = number("timeout", "give the job up after so many seconds")
_ASYNC: Final = flag("async", "do not wait for the end of a job that is given up")
_BYTE_RATE: Final = flag("bytes", "the limit is in bytes a second")
_RELATIVE: Final = flag("keep-relative", "name backing files by relative paths")

COMMANDS = (
    Command(
        "blkdeviotune",
        "show or set the limits of a disk",
        (DOMAIN, data("device", "the disk's name, or its source"), *_LIMITS, *THREE),
        _tune,
    ),
    Command(
        "blockcommit",
        "merge an image into one that it stands on",
        (
            DOMAIN, PATH, _BANDWIDTH,
            value("base", "the image to merge into; the last of the chain unless told"),
            flag("shallow", "merge only into the next image"),
            value("top", "the image to merge; the disk's own unless told"),
            flag("active", "the disk's own image may be merged, in two stages"),
            flag("delete", "remove the images that were merged"),
            flag("wait", "wait for the end, or with --active until both are the same"),
            flag("verbose", "show how far it is"),
            _TIMEOUT,
            flag("pivot", "go over to the base once both are the same"),
            flag("keep-overlay", "stay on the overlay once both are the same"),
            _ASYNC, _RELATIVE, _BYTE_RATE,
        ),
        _commit,
    ),
    Command(
        "blockcopy",
        "mirror a disk to another image",
        (
            DOMAIN, PATH,
            value("dest", "the file of the copy"),
            _BANDWIDTH,
            flag("shallow", "copy the disk's own image only"),
            flag("reuse-external", "write over a file that is there"),
            flag("blockdev", "the copy is a device"),
            flag("wait", "wait until both are the same"),
            flag("verbose", "show how far it is"),
            _TIMEOUT,
            flag("pivot", "go over to the copy then"),
            flag("finish", "end the job then"),
            _ASYNC,
            value("xml", "a file that describes the copy"),
            value("format", "the format of the copy"),
            number("granularity", "a power of two: what is copied at a time"),
            number("buf-size", "how many bytes may be under way"),
            _BYTE_RATE,
            flag("transient-job", "the job may be lost when the domain ends"),
            flag("synchronous-writes", "the guest's writes wait for the copy"),
            flag("print-xml", "print the document, and start nothing"),
        ),
        _copy,
    ),
    Command(
        "blockjob",
        "show or end the job of a disk",
        (
            DOMAIN, PATH,
            flag("abort", "give it up"),
            flag("async", "give it up, and do not wait for its end"),
            flag("pivot", "go over to the copy"),
            flag("info", "show how far it is"),
            flag("bytes", "limits are in bytes a second"),
            flag("raw", "show numbers"),
            _BANDWIDTH,
        ),
        _job,
    ),
    Command(
        "blockpull",
        "pull what a disk stands on into its own image",
        (
            DOMAIN, PATH, _BANDWIDTH,
            value("base", "the image to stand on afterwards; none unless told"),
            flag("wait", "wait for the end"),
            flag("verbose", "show how far it is"),
            _TIMEOUT, _ASYNC, _RELATIVE, _BYTE_RATE,
        ),
        _pull,
    ),
    Command(
        "blockresize",
        "change the size of a disk",
        (DOMAIN, PATH, number("size", "the new size, in KiB unless it has a unit")._replace(required=True)),
        _resize,
    ),
    Command(
        "domblkthreshold",
        "have an event told when an image grows past a mark",
        (
            DOMAIN,
            data("dev", "the disk's name, or one of its images: vda[2]"),
            number("threshold", "the mark in bytes, or with a unit")._replace(required=True),
        ),
        _threshold,
    ),
)  # fmt: skip
