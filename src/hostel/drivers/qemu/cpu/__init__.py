"""Processors: their models as QEMU knows them, what the host has, and what of both is in documents."""
