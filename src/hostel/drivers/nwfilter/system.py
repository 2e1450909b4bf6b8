"""The filters of the host, kept on disk, and enforced on the interfaces that have them.

Everything that changes rules is done under one lock, which all processes share. Whoever takes it next after a kill
first makes the rules of the interfaces that were being changed anew.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from hostel.drivers.base.nwfilter import NwfilterBindingRef, NwfilterRef
from hostel.drivers.document import reading
from hostel.drivers.fault import fault
from hostel.drivers.link.device import exists
from hostel.drivers.nwfilter import learning, standing
from hostel.drivers.nwfilter.bindings import Bindings, name_of
from hostel.drivers.nwfilter.commands import Command, check_interface, commands
from hostel.drivers.nwfilter.filters import StoredFilters
from hostel.drivers.nwfilter.firewall import Firewall
from hostel.drivers.nwfilter.instance import Instance, Variables, instances, missing
from hostel.drivers.nwfilter.memory import MemoryNwfilterDriver
from hostel.drivers.store import Directories
from hostel.errors import ErrorCode, ErrorDomain, VirtError
from hostel.model.address import read_mac
from hostel.model.nwfilter.binding import FilterBinding, read_binding
from hostel.model.nwfilter.filter import Filter, FilterReference, Parameter, complete_reference, read_filter

_LEARNING: Final = "CTRL_IP_LEARNING"
_SERVERS: Final = "DHCPSERVER"
_USUAL: Final = "any"  # how an address is learned where that is not said


class _Plan(NamedTuple):
    """What is to be done for an interface.

    Attributes:
        rules: that are to be in force.
        learning: how its addresses are to be learned first; None: they are known, or not needed.
    """

    rules: list[Command]
    learning: str | None = None


class SystemNwfilterDriver(MemoryNwfilterDriver):
    """Implements the protocols of :mod:`hostel.drivers.base.nwfilter` for the host."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._bindings = Bindings(directories)
        self._firewall = Firewall()
        self._stored = StoredFilters(directories)
        super().__init__(self._stored, contextlib.nullcontext())

    # Filters.

    def nwfilter_define_xml(self, xml: str) -> NwfilterRef:
        """Have a filter, or have it otherwise: on every interface that has it, or on none.

        Raises:
            VirtError: the document breaks a rule, or the new rules cannot be made for some interface.
        """
        with reading(ErrorDomain.NWFILTER):
            filter = read_filter(xml)
        name = filter.name or ""
        with self._locked():
            self._check_new(filter)
            try:
                before = self._stored.get(name)
                is_other = before is not None and before.format() != filter.format()
            except VirtError:
                is_other = True  # its file is broken
            if is_other:
                self._change(name, filter)
            else:
                self._stored[name] = filter
        return NwfilterRef(name, filter.uuid or "")

    def nwfilter_undefine(self, nwfilter: NwfilterRef) -> None:
        """Have a filter no more.

        Raises:
            VirtError: ``OPERATION_INVALID``: an interface has it.
        """
        with self._locked():
            self._of(nwfilter)
            if self._users(nwfilter.name):
                raise _fault(ErrorCode.OPERATION_INVALID, "nwfilter is in use")
            super().nwfilter_undefine(nwfilter)

    # Bindings.

    def connect_list_all_nwfilter_bindings(self) -> list[NwfilterBindingRef]:
        """Every binding, by the interface's name."""
        return [_ref(binding) for binding in self._bindings.all()]

    def nwfilter_binding_lookup_by_port_dev(self, port_device: str) -> NwfilterBindingRef:
        """Find by the interface's name."""
        return _ref(self._bindings.get(port_device))

    def nwfilter_binding_get_xml_desc(self, binding: NwfilterBindingRef) -> str:
        """The document."""
        return self._bindings.get(binding.port_device).format()

    def nwfilter_binding_create_xml(self, xml: str) -> NwfilterBindingRef:
        """Let an interface have a filter: its rules are in force when this returns.

        Raises:
            VirtError: the document breaks a rule; ``OPERATION_FAILED``: it has one; the rules cannot be made.
        """
        with reading(ErrorDomain.NWFILTER):
            binding = read_binding(xml)
            check_interface(binding.port_device or "")
        with self._locked():
            if self._bindings.find(name_of(binding)) is not None:
                raise _fault(ErrorCode.OPERATION_FAILED, f"binding '{binding.port_device}' already exists")
            self._bind(binding)
        return _ref(binding)

    def nwfilter_binding_delete(self, binding: NwfilterBindingRef) -> None:
        """Let an interface have its filter no more; all its rules are gone when this returns."""
        with self._locked():
            self._unbind(name_of(self._bindings.get(binding.port_device)))

    # Guests.

    def apply(self, binding: FilterBinding) -> None:
        """Let the interface of a guest that starts have its filter; what one before it had is taken away.

        Raises:
            VirtError: the rules cannot be made; the interface has none then.
        """
        with reading(ErrorDomain.NWFILTER):
            check_interface(binding.port_device or "")
        with self._locked():
            self._bind(binding)

    def change(self, binding: FilterBinding) -> None:
        """Let the interface of a guest that runs have another filter, with no moment between.

        Raises:
            VirtError: the rules cannot be made; the interface has those before then.
        """
        with self._locked():
            before = self._bindings.find(name_of(binding))
            if before is None:
                self._bind(binding)
            else:
                self._rebind(before, binding)

    def remove_of(self, owner: str, mac: str) -> None:
        """Take away the rules of a guest's interface, whatever it was called, and whether it is there or not."""
        if not any(_is_of(binding, owner, mac) for binding in self._bindings.all()):
            return
        with self._locked():
            for binding in self._bindings.all():
                if _is_of(binding, owner, mac):
                    self._unbind(name_of(binding))

    def learned(
        self, port_device: str, mark: str, addresses: Mapping[str, float], *, changed: bool, done: bool
    ) -> bool:
        """Put rules in force for the addresses that were found out, or for one who has none any more.

        Args:
            port_device: the interface.
            mark: of who found them out.
            addresses: with the time until which each is the interface's.
            changed: they are others than before, not only for another time.
            done: nothing else will be found out.

        Returns:
            False: nobody wants to know; the interface, or its filter, is another's by now.
        """
        with self._locked():
            binding = self._bindings.find(port_device)
            if binding is None or self._bindings.learning(port_device) != mark:
                return False
            if not changed:
                self._bindings.save_addresses(port_device, addresses)
                return True
            with self._bindings.changing(port_device):
                self._bindings.save_addresses(port_device, addresses)
                if done:
                    self._bindings.end_learning(port_device)
                try:
                    self._enforce(binding, self._planned(binding, self._find), mark=mark)
                except VirtError:
                    # What nobody sees fail must not stay open.
                    self._stand(port_device, standing.nothing(port_device))
                    raise
        return True

    # What is done under the lock.

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._bindings.locked():
            self._settle()
            yield

    def _settle(self) -> None:
        """Make the rules anew that somebody was changing, and go on learning where who did so is gone."""
        for name in self._bindings.unsettled():
            # One that cannot be put right keeps nobody from changing others.
            with contextlib.suppress(VirtError):
                self._make_anew(name)
                self._bindings.settle(name)
        for name in self._bindings.learners():
            mark, binding = self._bindings.learning(name), self._bindings.find(name)
            if mark is None or learning.is_running(self._bindings.lock_of_learner(name)):
                continue
            if binding is None or not exists(name):
                self._bindings.end_learning(name)
            else:
                learning.start(self._directories, binding, mark)

    def _make_anew(self, name: str) -> None:
        binding = self._bindings.find(name)
        self._firewall.remove(name)
        if binding is None:
            self._bindings.forget(name)
            return
        try:
            self._enforce(binding, self._planned(binding, self._find))
        except VirtError:
            self._stand(name, standing.nothing(name))

    def _bind(self, binding: FilterBinding) -> None:
        name = name_of(binding)
        plan = self._planned(binding, self._find)
        _complete(binding)
        with self._bindings.changing(name):
            self._firewall.remove(name)
            self._bindings.forget(name)
            self._bindings.save(binding)
            try:
                self._enforce(binding, plan)
            except BaseException:
                self._firewall.remove(name)
                self._bindings.forget(name)
                self._bindings.settle(name)
                raise

    def _rebind(self, before: FilterBinding, binding: FilterBinding) -> None:
        name = name_of(binding)
        plan = self._planned(binding, self._find)
        _complete(binding)
        with self._bindings.changing(name):
            self._bindings.save(binding)
            try:
                if plan.learning is None:
                    self._bindings.end_learning(name)
                self._enforce(binding, plan)
            except BaseException:
                self._bindings.save(before)
                raise

    def _unbind(self, name: str) -> None:
        with self._bindings.changing(name):
            self._bindings.end_learning(name)
            self._firewall.remove(name)
            self._bindings.forget(name)

    def _change(self, name: str, filter: Filter) -> None:
        """Have a filter otherwise: the new rules of all who have it are made before any is in force."""

        def find(wanted: str) -> Filter:
            return filter if wanted == name else self._find(wanted)

        users = [(binding, self._planned(binding, find)) for binding in self._users(name)]
        made = [(name_of(binding), binding, plan) for binding, plan in users if exists(name_of(binding))]
        with self._bindings.changing(*(port for port, _, _ in made)):
            try:
                for port, _, plan in made:
                    if plan.learning is None:
                        self._firewall.make(port, plan.rules)
                self._stored[name] = filter
            except BaseException:
                for port, _, _ in made:
                    self._firewall.remove_new(port)
                    self._bindings.settle(port)
                raise
            for port, binding, plan in made:
                if plan.learning is None:
                    self._firewall.switch(port)
                elif self._bindings.learning(port) is None:
                    self._enforce(binding, plan)

    def _users(self, name: str) -> list[FilterBinding]:
        """The bindings whose filters are, or include, a filter."""
        return [binding for binding in self._bindings.all() if self._includes(_filter_of(binding), name, set())]

    def _includes(self, filter: str, name: str, seen: set[str]) -> bool:
        if filter == name:
            return True
        seen.add(filter)
        known = self._stored.get(filter)
        included = [] if known is None else [each.filter for each in known.entries if isinstance(each, FilterReference)]
        return any(each not in seen and self._includes(each, name, seen) for each in included if each is not None)

    def _find(self, name: str) -> Filter:
        found = self._stored.get(name)
        if found is None:
            raise _fault(ErrorCode.INTERNAL_ERROR, f"referenced filter '{name}' is missing")
        return found

    def _planned(self, binding: FilterBinding, find: Callable[[str], Filter]) -> _Plan:
        """What a binding's interface is to have.

        Raises:
            VirtError: a filter is missing, a variable has no value, or a rule cannot be said.
        """
        name, variables = name_of(binding), self._variables(binding)
        with reading(ErrorDomain.NWFILTER):
            rules = list(_instances(find, _filter_of(binding), variables))
            lacking = missing(rules)
            if not lacking:
                return _Plan(commands(name, rules))
        how = (variables.get(_LEARNING) or [_USUAL])[0].lower()
        if lacking != ["IP"] or how == "none":
            shown = ", ".join(each for each in lacking if each != "IP" or how == "none")
            reason = f"Cannot instantiate filter due to unresolvable variables or unavailable list elements: {shown}"
            raise _fault(ErrorCode.INTERNAL_ERROR, reason)
        if how not in learning.WAYS:
            reason = f"filter '{_filter_of(binding)}' learning value '{how}' invalid."
            raise _fault(ErrorCode.PARSE_FAILED, reason)
        mac = variables["MAC"][0]
        servers = variables.get(_SERVERS) or []
        rules_until = standing.basic(name, mac) if how == _USUAL else standing.dhcp_only(name, mac, servers)
        return _Plan(rules_until, how)

    def _variables(self, binding: FilterBinding) -> Variables:
        """The values of variables that hold for an interface, those that were found out among them."""
        found: dict[str, list[str]] = {}
        for parameter in binding.reference.parameters if binding.reference is not None else ():
            found.setdefault(parameter.name or "", []).append(parameter.value or "")
        found.setdefault("MAC", [binding.mac or ""])
        addresses = list(self._bindings.addresses(name_of(binding)))
        if addresses:
            found.setdefault("IP", addresses)
        return found

    def _enforce(self, binding: FilterBinding, plan: _Plan, *, mark: str | None = None) -> None:
        """Put a plan's rules in force; ``mark``: of who finds out the addresses already."""
        name = name_of(binding)
        if not exists(name):
            # It went away, or is not there yet; libvirt takes that for no mistake either.
            self._firewall.remove(name)
            return
        if plan.learning is None:
            self._firewall.make(name, plan.rules)
            self._firewall.switch(name)
            return
        self._stand(name, plan.rules)
        if mark is None or self._bindings.learning(name) != mark:
            mark = f"{plan.learning} {secrets.token_hex(8)}"
            self._bindings.begin_learning(name, mark)
            learning.start(self._directories, binding, mark)

    def _stand(self, name: str, rules: list[Command]) -> None:
        """Put rules in force in place of all others, with no moment between."""
        self._firewall.make(name, rules)
        self._firewall.switch(name)


def _complete(binding: FilterBinding) -> None:
    """Write down the variable that every interface has."""
    reference = binding.reference
    if reference is not None and all(parameter.name != "MAC" for parameter in reference.parameters):
        reference.parameters.append(Parameter(name="MAC", value=binding.mac))
        complete_reference(reference)


def _instances(find: Callable[[str], Filter], name: str, variables: Variables) -> Iterator[Instance]:
    return instances(find(name), variables, find)


def _is_of(binding: FilterBinding, owner: str, mac: str) -> bool:
    return binding.owner is not None and binding.owner.uuid == owner and binding.mac == read_mac(mac)


def _filter_of(binding: FilterBinding) -> str:
    return "" if binding.reference is None else binding.reference.filter or ""


def _ref(binding: FilterBinding) -> NwfilterBindingRef:
    return NwfilterBindingRef(name_of(binding), _filter_of(binding))


def _fault(code: ErrorCode, detail: str) -> VirtError:
    return fault(code, detail, ErrorDomain.NWFILTER)
