"""Format ``dmg``: disk images of macOS, for reading."""
