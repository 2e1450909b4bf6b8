"""Domains under real QEMU, in process and without a daemon: ``qemu:///session``."""
