"""Contexts and categories of machines, and what a policy says of them; nothing of it needs SELinux."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hostel.drivers.qemu.confinement.selinux import kernel, reservation
from hostel.drivers.qemu.confinement.selinux.context import Categories, Context, categories, choose_range
from hostel.drivers.qemu.confinement.selinux.library import look_up
from hostel.drivers.qemu.confinement.selinux.mark import MARK
from hostel.drivers.qemu.confinement.selinux.policy import Policy, read_policy
from hostel.drivers.qemu.machines import Machines
from hostel.drivers.store import Directories

ALL = Categories("s0", 0, 1023)


def test_a_context_is_its_parts() -> None:
    context = Context.parse("system_u:object_r:svirt_image_t:s0-s0:c1,c2\n")
    assert context == ("system_u", "object_r", "svirt_image_t", "s0-s0:c1,c2")
    assert str(context) == "system_u:object_r:svirt_image_t:s0-s0:c1,c2"
    assert str(Context.parse("a:b:c")) == "a:b:c"
    for wrong in ("", "kernel", "a:b", "a::c", "a b:c:d"):
        with pytest.raises(ValueError, match="is no security context"):
            Context.parse(wrong)


def test_a_machine_has_our_user_and_role_and_the_policy_s_type() -> None:
    ours = Context.parse("staff_u:staff_r:staff_t:s0-s0:c0.c1023")
    process = Context.parse("system_u:system_r:svirt_t:s0").for_machine(ours, "s0:c1,c2", is_file=False)
    assert str(process) == "staff_u:staff_r:svirt_t:s0:c1,c2"
    file = Context.parse("system_u:object_r:svirt_image_t:s0").for_machine(ours, "s0:c1,c2", is_file=True)
    assert str(file) == "staff_u:object_r:svirt_image_t:s0:c1,c2"


@pytest.mark.parametrize(
    ("range", "found"),
    [
        (None, ALL),
        ("s0", ALL),
        ("s0-s0:c0.c1023", ALL),
        ("s0:c10.c30", Categories("s0", 10, 30)),
        ("s1-s2:c10.c30", Categories("s1", 10, 30)),
        ("s0:c1-s0:c1.c40", Categories("s0", 1, 40)),
    ],
)
def test_the_categories_of_who_starts_machines(range: str | None, found: Categories) -> None:
    assert categories(range) == found


@pytest.mark.parametrize(
    ("range", "why"),
    [
        ("s0:c5", "No category range available"),
        ("s0:x", "Cannot parse category in x"),
        ("s0:c1.c7", "Category range c1-c7 too small"),
    ],
)
def test_categories_of_which_there_are_no_pairs(range: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        categories(range)


def test_pairs_are_all_given_and_none_twice() -> None:
    allowed, taken = Categories("s0", 0, 7), set[str]()
    for _ in range(8 * 7 // 2):
        found = choose_range(allowed, taken)
        low, high = found.removeprefix("s0:c").split(",c")
        assert 0 <= int(low) < int(high) <= 7 and found not in taken
        taken.add(found)
    with pytest.raises(ValueError, match="all pairs of the categories c0 to c7 are in use"):
        choose_range(allowed, taken)


def test_machines_that_start_together_get_different_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "ranges_in_use", set)
    machines, found = Machines(Directories.under(tmp_path)), dict[str, str]()

    def start(name: str) -> None:
        with machines.locked(name):
            found[name] = reservation.reserve(machines, name, Categories("s0", 0, 7))
            done.wait(30)

    done = threading.Barrier(28)
    threads = [threading.Thread(target=start, args=[f"m{number}"]) for number in range(28)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found.values())) == 28
    # They came to nothing, and left no state: their categories are free again.
    with machines.locked("new"):
        assert reservation.reserve(machines, "new", Categories("s0", 0, 7)) in found.values()
    assert machines.ranges.names() == ["new"]


def test_categories_of_processes_that_others_started_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {f"s0:c{low},c{high}" for low in range(8) for high in range(low + 1, 8)}
    monkeypatch.setattr(kernel, "ranges_in_use", lambda: pairs - {"s0:c3,c5"})
    machines = Machines(Directories.under(tmp_path))
    assert reservation.reserve(machines, "a", Categories("s0", 0, 7)) == "s0:c3,c5"
    assert reservation.reserve(machines, "a", Categories("s0", 0, 7)) == "s0:c3,c5"
    machines.statuses.write("a", "<x/>")
    with pytest.raises(ValueError, match="are in use"):
        reservation.reserve(machines, "b", Categories("s0", 0, 7))
    reservation.release(machines, "a")
    assert reservation.reserve(machines, "b", Categories("s0", 0, 7)) == "s0:c3,c5"


def _policy(tmp_path: Path, domain: str, image: str, config: str = "SELINUX=enforcing\nSELINUXTYPE = mine\n") -> Policy:
    folder = tmp_path / "mine/contexts"
    folder.mkdir(parents=True)
    (tmp_path / "config").write_text(config)
    (folder / "virtual_domain_context").write_text(domain)
    (folder / "virtual_image_context").write_text(image)
    return read_policy(tmp_path)


def test_contexts_that_a_policy_has_for_machines(tmp_path: Path) -> None:
    found = _policy(tmp_path, "a:b:svirt_t:s0\na:b:svirt_tcg_t:s0\n", "a:b:svirt_image_t:s0\na:b:virt_content_t:s0\n")
    assert tuple(found) == ("a:b:svirt_t:s0", "a:b:svirt_tcg_t:s0", "a:b:svirt_image_t:s0", "a:b:virt_content_t:s0")
    assert (found.base("kvm"), found.base("qemu")) == ("a:b:svirt_t:s0", "a:b:svirt_tcg_t:s0")


def test_a_policy_may_have_one_context_for_all_machines(tmp_path: Path) -> None:
    found = _policy(tmp_path, "a:b:svirt_t:s0\n", "a:b:svirt_image_t:s0")
    assert (found.emulated, found.base("qemu"), found.content) == (None, "a:b:svirt_t:s0", "a:b:svirt_image_t:s0")


def test_a_policy_without_machines_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="config"):
        read_policy(tmp_path)
    with pytest.raises(ValueError, match="virtual_domain_context' is empty"):
        _policy(tmp_path, "", "a:b:c:s0")


def test_without_selinux_nothing_is_labelled(tmp_path: Path) -> None:
    if kernel.is_on():
        pytest.skip("this host runs SELinux")
    (tmp_path / "a").touch()
    kernel.copy_label(tmp_path, tmp_path / "a")
    assert kernel.context_for_sockets(tmp_path) is None
    with kernel.sockets_as("a:b:c:s0"):
        pass
    assert MARK.read(str(tmp_path / "a")) is None
    assert look_up("/etc/passwd", 0o100644) is None
