"""The features of x86 processors by the bits that CPUID tells them in, under the names of libvirt's documents.

Bits: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E. Documents have features in the order of this table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

# Leaf, subleaf, register, and the names of its bits from bit 0 on: "-" is a bit without a name, "+N" are N of them.
_BITS: Final = """
1 0 edx fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - ds acpi mmx fxsr sse
    sse2 ss ht tm ia64 pbe
1 0 ecx pni pclmuldq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2
    x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor
6 0 eax +2 arat
7 0 ebx fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm cmt - mpx - avx512f avx512dq rdseed adx
    smap avx512ifma pcommit clflushopt clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl
7 0 ecx - avx512vbmi umip pku ospke waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg -
    avx512-vpopcntdq - la57 +5 rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks
7 0 edx +2 avx512-4vnniw avx512-4fmaps fsrm +3 avx512-vp2intersect - md-clear +3 serialize - tsx-ldtrk - pconfig
    arch-lbr +2 amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp - arch-capabilities core-capability ssbd
7 1 eax +4 avx-vnni avx512-bf16
d 1 eax xsaveopt xsavec xgetbv1 xsaves xfd
f 1 edx - mbm_total mbm_local
12 0 eax sgx1 sgx2
12 0 ebx sgx-exinfo
12 1 eax - sgx-debug sgx-mode64 - sgx-provisionkey sgx-tokenkey - sgx-kss
14 0 ecx +31 intel-pt-lip
80000001 0 edx +11 syscall +8 nx - mmxext +2 fxsr_opt pdpe1gb rdtscp - lm 3dnowext 3dnow
80000001 0 ecx lahf_lm cmp_legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt -
    lwp fma4 tce cvt16 nodeid_msr - tbm topoext perfctr_core perfctr_nb
80000007 0 edx +8 invtsc
80000008 0 ebx clzero - xsaveerptr +6 wbnoinvd +2 ibpb - ibrs amd-stibp +8 amd-ssbd virt-ssbd amd-no-ssb
8000000a 0 edx npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists +2 pause-filter - pfthreshold
    avic - v-vmsave-vmload vgif +11 svme-addr-chk
"""
# These are bits of model-specific registers, IA32_ARCH_CAPABILITIES and IA32_CORE_CAPABILITY.
_REGISTERS: Final = (
    "rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no split-lock-detect"
)
# QEMU's names of what documents call otherwise.
_OTHER_NAMES: Final = {
    "cmp-legacy": "cmp_legacy", "ds-cpl": "ds_cpl", "fxsr-opt": "fxsr_opt", "lahf-lm": "lahf_lm",
    "nodeid-msr": "nodeid_msr", "pclmulqdq": "pclmuldq", "perfctr-core": "perfctr_core", "perfctr-nb": "perfctr_nb",
    "tsc-adjust": "tsc_adjust",
}  # fmt: skip
# A guest that has one of these stays where it is.
NOT_MIGRATABLE: Final = frozenset({"xsaves", "invtsc"})
# What the host's kernel has switched on for itself, and counters that it does not share: QEMU knows none of it.
HOST_ALONE: Final = frozenset({"cmt", "mbm_total", "mbm_local", "osxsave", "ospke"})


class Place(NamedTuple):
    """Where CPUID tells a feature: leaf, subleaf, the register's place in EAX, EBX, ECX, EDX, and the bit."""

    leaf: int
    subleaf: int
    register: int
    bit: int


def _places() -> Iterator[tuple[str, Place]]:
    for row in _BITS.replace("\n    ", " ").strip().splitlines():
        leaf, subleaf, register, *names = row.split()
        bit = 0
        for name in names:
            if name.startswith("+"):
                bit += int(name[1:])
                continue
            if name != "-":
                yield name, Place(int(leaf, 16), int(subleaf), ("eax", "ebx", "ecx", "edx").index(register), bit)
            bit += 1


PLACES: Final = dict(_places())
NAMES: Final = (*PLACES, *_REGISTERS.split())
_ORDER: Final = {name: position for position, name in enumerate(NAMES)}


def is_known(name: str) -> bool:
    """Whether documents have a feature of this name."""
    return name in _ORDER


def from_qemu(name: str) -> str:
    """A feature of QEMU's as documents call it."""
    return _OTHER_NAMES.get(name, name)


def in_order(names: Iterable[str]) -> list[str]:
    """Known features in the order that documents have them in."""
    return sorted((name for name in names if name in _ORDER), key=_ORDER.__getitem__)
