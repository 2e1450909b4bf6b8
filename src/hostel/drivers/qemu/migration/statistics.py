"""How far a migration is, and how the last one went, by libvirt's names (``qemuDomainMigrationJobDataToParams``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from hostel.drivers.qemu.migration.cookie import Numbers
from hostel.drivers.qemu.running import Running

MIGRATION_IN, MIGRATION_OUT = 4, 5  # of virDomainJobOperation
_MEMORY: Final = (
    ("memory_total", "total"), ("memory_processed", "transferred"), ("memory_remaining", "remaining"),
    ("memory_constant", "duplicate"), ("memory_normal", "normal"), ("memory_normal_bytes", "normal-bytes"),
    ("memory_dirty_rate", "dirty-pages-rate"), ("memory_iteration", "dirty-sync-count"),
    ("memory_postcopy_requests", "postcopy-requests"), ("memory_page_size", "page-size"),
)  # fmt: skip
_XBZRLE: Final = (
    ("compression_cache", "cache-size"), ("compression_bytes", "bytes"), ("compression_pages", "pages"),
    ("compression_cache_misses", "cache-miss"), ("compression_overflow", "overflow"),
)  # fmt: skip


def numbers(found: Mapping[str, Any], jobs: Iterable[Mapping[str, Any]], elapsed: int) -> dict[str, int]:
    """What QEMU says of its migration and of the jobs that copy disks; ``elapsed`` is in milliseconds."""
    ram = found.get("ram", {})
    told = {"operation": MIGRATION_OUT, "time_elapsed": elapsed}
    downtime = found.get("downtime", found.get("expected-downtime"))
    if downtime is not None:
        told["downtime"] = int(downtime)
    if "setup-time" in found:
        told["setup_time"] = int(found["setup-time"])
    done = total = speed = 0
    for job in jobs:
        done, total = done + int(job["offset"]), total + int(job["len"])
        speed += int(job.get("speed", 0))
    memory = {name: int(ram[key]) for name, key in _MEMORY if key in ram}
    told["data_total"] = memory.get("memory_total", 0) + total
    told["data_processed"] = memory.get("memory_processed", 0) + done
    told["data_remaining"] = memory.get("memory_remaining", 0) + total - done
    told |= memory
    if "mbps" in ram:
        told["memory_bps"] = int(float(ram["mbps"]) * 1000 * 1000 / 8)
    told |= {"disk_total": total, "disk_processed": done, "disk_remaining": total - done, "disk_bps": speed}
    cache = found.get("xbzrle-cache", {})
    told |= {name: int(cache[key]) for name, key in _XBZRLE if key in cache}
    if found.get("cpu-throttle-percentage"):
        told["auto_converge_throttle"] = int(found["cpu-throttle-percentage"])
    return told


def current(machine: Running, elapsed: int) -> dict[str, int]:
    """How far the migration of a machine is.

    Raises:
        VirtError: QEMU does not answer.
    """
    jobs = [job for job in machine.ask("query-block-jobs") if str(job["device"]).startswith("migration-")]
    return numbers(machine.ask("query-migrate"), jobs, elapsed)


def as_cookie(told: Mapping[str, int], started: int, stopped: int, sent: int) -> Numbers:
    """What the destination is told."""
    names = {field.name for field in Numbers.FIELDS}
    known = {name: value for name, value in told.items() if name in names}
    return Numbers(**known, started=started, stopped=stopped, sent=sent)


def from_cookie(cookie: Numbers | None, operation: int) -> dict[str, int]:
    """What the other side has told of how it went."""
    if cookie is None:
        return {}
    values = {field.name: getattr(cookie, field.name) for field in Numbers.FIELDS}
    told = {name: value for name, value in values.items() if value is not None}
    for name in ("started", "stopped", "sent", "delta"):
        told.pop(name, None)
    told["data_total"] = told.get("memory_total", 0) + told.get("disk_total", 0)
    told["data_processed"] = told.get("memory_processed", 0) + told.get("disk_processed", 0)
    told["data_remaining"] = told.get("memory_remaining", 0) + told.get("disk_remaining", 0)
    return {"operation": operation, **told}
