"""Format ``qed``, QEMU's enhanced disk: a header, an L1 table of L2 tables, and clusters; no reference counts.

Specification: ``docs/interop/qed_spec.txt`` of QEMU's sources.
"""
