"""Logical units of iSCSI targets, reached in user space by libiscsi."""
