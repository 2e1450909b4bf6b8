"""Disk encryption: sector ciphers, LUKS version 1 volumes, and the AES scheme of old qcow images."""
