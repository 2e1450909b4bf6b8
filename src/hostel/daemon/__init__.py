"""The daemon: libvirt's remote protocol in front of the drivers."""
