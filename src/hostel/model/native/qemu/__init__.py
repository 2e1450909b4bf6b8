"""Command lines of QEMU as documents."""
