"""The format ``vmdk``: VMware's disks, as text that names extents, or as one extent with that text inside.

Layouts follow VMware's "Virtual Disk Format 5.0" and, where that is silent (COWD, seSparse), what QEMU 7.2 reads.
"""
