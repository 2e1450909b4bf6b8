"""The options that images are created and amended with; apart from what does it, since every command declares them."""

from __future__ import annotations

from typing import Final

from hostel.block.options import Kind, Option, Options

# In QEMU's order, in which qemu-img prints them.
CREATE_OPTIONS: Final = Options(
    Option("encryption", Kind.BOOL, "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"),
    Option("encrypt.format", Kind.STRING, "Encrypt the image, format choices: 'aes', 'luks'"),
    Option("encrypt.key-secret", Kind.STRING, "ID of secret providing qcow AES key or LUKS passphrase"),
    Option("encrypt.cipher-alg", Kind.STRING, "Name of encryption cipher algorithm"),
    Option("encrypt.cipher-mode", Kind.STRING, "Name of encryption cipher mode"),
    Option("encrypt.ivgen-alg", Kind.STRING, "Name of IV generator algorithm"),
    Option("encrypt.ivgen-hash-alg", Kind.STRING, "Name of IV generator hash algorithm"),
    Option("encrypt.hash-alg", Kind.STRING, "Name of encryption hash algorithm"),
    Option("encrypt.iter-time", Kind.NUMBER, "Time to spend in PBKDF in milliseconds"),
    Option("cluster_size", Kind.SIZE, "qcow2 cluster size", "65536"),
    Option("extended_l2", Kind.BOOL, "Extended L2 tables", "off"),
    Option("preallocation", Kind.STRING, "Preallocation mode (allowed values: off, metadata, falloc, full)"),
    Option("compression_type", Kind.STRING, "Compression method used for image cluster compression", "zlib"),
    Option("size", Kind.SIZE, "Virtual disk size"),
    Option("compat", Kind.STRING, "Compatibility level (v2 [0.10] or v3 [1.1])"),
    Option("backing_file", Kind.STRING, "File name of a base image"),
    Option("backing_fmt", Kind.STRING, "Image format of the base image"),
    Option("data_file", Kind.STRING, "File name of an external data file"),
    Option("data_file_raw", Kind.BOOL, "The external data file must stay valid as a raw image"),
    Option("lazy_refcounts", Kind.BOOL, "Postpone refcount updates", "off"),
    Option("refcount_bits", Kind.NUMBER, "Width of a reference count entry in bits", "16"),
)

# Nothing is amended that was not asked for: these have no defaults.
AMEND_OPTIONS: Final = Options(
    Option("encrypt.state", Kind.STRING, "Select new state of affected keyslots (active/inactive)"),
    Option("encrypt.new-secret", Kind.STRING, "New secret to set in the matching keyslots. Empty string to erase"),
    Option("encrypt.old-secret", Kind.STRING, "Select all keyslots that match this password"),
    Option("encrypt.keyslot", Kind.NUMBER, "Select a single keyslot to modify explicitly"),
    *(
        CREATE_OPTIONS[name]._replace(default=None)
        for name in (
            "encrypt.iter-time",
            "size",
            "compat",
            "backing_file",
            "backing_fmt",
            "data_file",
            "data_file_raw",
            "lazy_refcounts",
            "refcount_bits",
        )
    ),
)
