"""A profile for each machine, which names the files that it may open (``security_apparmor.c``)."""
