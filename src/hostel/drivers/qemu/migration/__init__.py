"""Domains that move to another host, or come from one."""
