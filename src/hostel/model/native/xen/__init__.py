"""Xen: the configuration of a domain as xl and, before it, xm have it (``src/libxl/xen_common.c``)."""
