"""What QEMU's tools have in common: their options and objects, opening what is named, and how they end."""
