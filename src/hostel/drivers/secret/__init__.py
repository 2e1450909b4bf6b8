"""Secrets: passphrases of volumes, passwords of servers."""
