"""Lock managers: who keeps apart machines, on several hosts too, that would use the same disks or leases.

A lock manager knows a machine by QEMU's process id, and lets go of what it has when that process ends: QEMU has a
connection to it from before it is QEMU (:mod:`hostel.drivers.qemu.lockmanager.entry`). Locks are had while a guest may
run (:mod:`hostel.drivers.qemu.lockmanager.holding`).
"""
