"""Format ``qcow2``: QEMU's copy-on-write images, versions 2 and 3 (specification: QEMU's ``docs/interop/qcow2.txt``).

``layout`` and ``header`` are the bytes on disk, ``geometry`` the sizes that follow from them, ``image`` the live image
with its tables, ``refcount`` the allocator, ``space`` what is allocated and given up, ``mapping`` guest to host,
``write`` the writes, ``transaction`` changes that take effect with one write to the header; ``driver`` puts them
together.
"""
