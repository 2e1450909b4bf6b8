"""What a complete document must not say: tables of rules in libvirt's words."""
