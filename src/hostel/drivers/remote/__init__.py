"""Drivers that are on another host, or in a daemon on this one: libvirt's remote protocol, as its client."""
