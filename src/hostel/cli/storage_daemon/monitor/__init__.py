"""The QMP monitor: bytes become commands, commands find their functions in a table, and answers and events go back.

A module with a tuple ``COMMANDS`` and a row in :data:`hostel.cli.storage_daemon.monitor.registry.GROUPS` adds commands.
"""
