"""Format ``vhdx``: Hyper-V's second disk format (``docs/formats/vhdx.md``)."""
