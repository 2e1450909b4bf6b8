"""What the users of a node keep others from, and what a node is after a job, beside QEMU's storage daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scene import Client, Command, Event, Step, compare, qemu_io, run

pytestmark = [pytest.mark.requires_tool(tool) for tool in ("qemu-storage-daemon", "qemu-img", "qemu-io")]

NBD = ("--nbd-server", "addr.type=unix,addr.path=nbd.sock")
IMAGES = (
    "qemu-img create -q -f qcow2 base.qcow2 1M",
    "qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2",
    "qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2",
    "qemu-img create -q -f qcow2 other.qcow2 1M",
    'qemu-io -f qcow2 -c "write -P 1 0 256k" base.qcow2',
    'qemu-io -f qcow2 -c "write -P 2 128k 256k" mid.qcow2',
    'qemu-io -f qcow2 -c "write -P 3 256k 256k" top.qcow2',
)
NODES = run("query-named-block-nodes", flat=True)


def add(name: str, **options: object) -> Command:
    file = {"driver": "file", "filename": f"{name}.qcow2", "node-name": f"{name}-file"}
    return run("blockdev-add", driver="qcow2", node_name=name, file=file, **options)


def reopen(name: str, **options: object) -> Command:
    given = {key.replace("_", "-"): value for key, value in options.items()}
    return run("blockdev-reopen", options=[{"driver": "qcow2", "node-name": name, "file": f"{name}-file", **given}])


def over(job: str) -> list[Step]:
    """The end of a job."""
    return [Event("JOB_STATUS_CHANGE", "concluded"), run("query-jobs"), run("job-dismiss", id=job)]


def test_an_overlay_of_the_same_transaction_is_backed_up_into(tmp_path: Path) -> None:
    overlay = {"node-name": "base", "snapshot-file": "new.qcow2", "snapshot-node-name": "new"}
    backup = {"device": "base", "target": "new", "sync": "top", "job-id": "j", "auto-dismiss": False}
    actions = [
        {"type": "blockdev-snapshot-sync", "data": overlay},
        {"type": "blockdev-backup", "data": backup},
    ]
    steps: list[Step] = [add("base"), run("transaction", actions=actions), *over("j"), NODES]
    compare(tmp_path, IMAGES, NBD, steps)


def test_a_backup_of_what_an_image_itself_has_leaves_the_rest_of_its_target_alone(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        add("other"),
        run("blockdev-backup", device="base", target="other", sync="top", job_id="j", auto_dismiss=False),
        *over("j"),
        run("block-export-add", type="nbd", id="e", node_name="other"),
        Client(("qemu-io", "-r", *qemu_io("other", "read -P 1 0 256k", "read -P 4 256k 768k").words[1:])),
    ]
    compare(tmp_path, (*IMAGES, 'qemu-io -f qcow2 -c "write -P 4 0 1M" other.qcow2'), NBD, steps)


def test_a_file_stays_read_only_as_it_was_opened_again_whatever_records_writes(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        reopen("base", read_only=True),
        run("block-dirty-bitmap-add", node="base", name="b"),
        reopen("base"),
        reopen("base", read_only=False),
        run("block-dirty-bitmap-remove", node="base", name="b"),
        NODES,
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def chain() -> list[Step]:
    """Three images one on the other."""
    return [add("base"), add("mid", backing="base"), add("top", backing="mid"), add("other")]


def export(node: str, *, writable: bool = False) -> list[Step]:
    """Whether a node can be exported."""
    name = f"{node}-{writable}"
    return [
        run("block-export-add", type="nbd", id=name, node_name=node, name=name, writable=writable),
        run("block-export-del", id=name),
    ]


def everybody() -> list[Step]:
    """Exports of all nodes, which may be forbidden, and other uses."""
    steps: list[Step] = []
    for node in ("top", "mid", "base", "other"):
        steps += [*export(node), *export(node, writable=True)]
    for node in ("top", "mid", "base", "other", "base-file"):
        steps.append(run("block_resize", node_name=node, size=1 << 20))
    return [*steps, run("blockdev-add", driver="raw", node_name="raw", file="base"), *export("raw", writable=True)]


def stopped(job: str) -> list[Step]:
    """The end of a job that is cancelled, after which nobody is kept from anything."""
    return [
        run("block-job-cancel", device=job, force=True),
        Event("BLOCK_JOB_CANCELLED"),
        *(step for node in ("top", "mid", "base", "other") for step in export(node)),
    ]


READY = Event("BLOCK_JOB_READY")
PENDING = Event("BLOCK_JOB_PENDING")
JOBS: dict[str, tuple[Command, list[Step]]] = {
    "active commit": (run("block-commit", device="top", job_id="j"), [READY]),
    "active commit of one": (run("block-commit", device="top", base_node="mid", job_id="j"), [READY]),
    "commit": (
        run("block-commit", device="top", top_node="mid", base_node="base", job_id="j", auto_finalize=False),
        [PENDING],
    ),
    "stream": (run("block-stream", device="top", job_id="j", auto_finalize=False), [PENDING]),
    "stream to a base": (
        run("block-stream", device="top", base_node="base", job_id="j", auto_finalize=False),
        [PENDING],
    ),
    "mirror": (run("blockdev-mirror", device="top", target="other", sync="full", job_id="j"), [READY]),
    "backup": (run("blockdev-backup", device="top", target="other", sync="none", job_id="j"), []),
}


@pytest.mark.parametrize("name", JOBS)
def test_what_a_job_does_is_kept_from_others(tmp_path: Path, name: str) -> None:
    command, ready = JOBS[name]
    compare(tmp_path, IMAGES, NBD, [*chain(), command, *ready, *everybody(), *stopped("j")], events=False)


REFUSED = (
    ("active commit", "mid", False),
    ("commit", "base", True),
    ("stream", "mid", True),
    ("stream", "base", True),
    ("stream to a base", "mid", True),
    ("mirror", "other", False),
)


@pytest.mark.parametrize(("name", "node", "writable"), REFUSED)
def test_a_job_does_not_begin_against_what_others_do(tmp_path: Path, name: str, node: str, writable: bool) -> None:
    begin, end = export(node, writable=writable)
    command, ready = JOBS[name]
    steps = [*chain(), begin, command, NODES, end, command, *ready, *stopped("j")]
    compare(tmp_path, IMAGES, NBD, steps, events=False)


@pytest.mark.parametrize("writable", [False, True])
def test_what_takes_the_place_of_a_disk_is_as_writable_as_that(tmp_path: Path, *, writable: bool) -> None:
    steps: list[Step] = [
        add("base", read_only=not writable),
        add("other"),
        run("blockdev-mirror", device="base", target="other", sync="full", job_id="j"),
        Event("BLOCK_JOB_READY"),
        run("job-complete", id="j"),
        Event("BLOCK_JOB_COMPLETED"),
        NODES,
        *export("other", writable=True),
        *export("base", writable=True),
    ]
    compare(tmp_path, IMAGES, NBD, steps, events=False)


def bitmap(node: str) -> Command:
    """One in memory, which puts a filter into the node."""
    return run("block-dirty-bitmap-add", node=node, name="b")


def test_images_with_bitmaps_are_committed_by_the_names_of_their_nodes(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("base"),
        bitmap("base"),
        add("mid", backing="base"),
        bitmap("mid"),
        add("top", backing="mid"),
        bitmap("top"),
        run("block-commit", device="top", top_node="mid", base_node="base", job_id="j", auto_dismiss=False),
        *over("j"),
        NODES,
        run("block-commit", device="top", job_id="j", base_node="base", auto_dismiss=False),
        READY,
        run("job-complete", id="j"),
        Event("BLOCK_JOB_COMPLETED"),
        NODES,
    ]
    compare(tmp_path, IMAGES, NBD, steps, events=False)


def test_a_stream_may_be_told_an_image_with_a_bitmap_as_its_bottom(tmp_path: Path) -> None:
    steps: list[Step] = [
        *chain(),
        bitmap("top"),
        bitmap("mid"),
        run("block-stream", device="top", bottom="mid", job_id="j", auto_dismiss=False),
        *over("j"),
        NODES,
    ]
    compare(tmp_path, IMAGES, NBD, steps, events=False)


def test_a_bitmap_does_not_record_what_is_streamed(tmp_path: Path) -> None:
    steps: list[Step] = [
        *chain(),
        bitmap("top"),
        run("block-stream", device="top", base_node="base", job_id="j", auto_dismiss=False),
        *over("j"),
        NODES,
    ]
    compare(tmp_path, IMAGES, NBD, steps, events=False)


def test_a_backup_of_a_transaction_that_fails_never_runs(tmp_path: Path) -> None:
    backup = {"device": "base", "target": "other", "sync": "full", "job-id": "j"}
    actions = [{"type": "blockdev-backup", "data": backup}, {"type": "abort", "data": {}}]
    steps: list[Step] = [
        add("base"),
        add("other"),
        run("transaction", actions=actions),
        run("transaction", actions=actions, properties={"completion-mode": "grouped"}),
        run("transaction", actions=[actions[0], {"type": "blockdev-backup", "data": {**backup, "job-id": "k"}}]),
        NODES,
        run("query-jobs"),
    ]
    compare(tmp_path, IMAGES, NBD, steps)


def test_only_what_can_stand_on_another_image_is_told_on_what(tmp_path: Path) -> None:
    steps: list[Step] = [
        add("other", backing=None),
        run("blockdev-add", driver="raw", node_name="raw", file="other", backing=None),
        run(
            "blockdev-add", driver="vpc", node_name="raw", file={"driver": "file", "filename": "x", "backing": "other"}
        ),
        run("blockdev-add", driver="raw", node_name="raw", file="other"),
        run("blockdev-reopen", options=[{"driver": "raw", "node-name": "raw", "file": "other", "backing": None}]),
    ]
    compare(tmp_path, IMAGES, NBD, steps)
