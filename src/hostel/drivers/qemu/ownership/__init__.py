"""Who QEMU runs as, and whose the files are that it opens: libvirt's driver "dac" (``security_dac.c``)."""
