"""Format ``parallels``, expandable disks of Parallels: a header, one table of places, and clusters.

Specification: ``docs/interop/parallels.txt`` of QEMU's sources.
"""
