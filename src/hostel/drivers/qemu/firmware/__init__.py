"""Firmware: which one a machine gets, by the descriptors that QEMU's packages bring, and where its variables are."""
