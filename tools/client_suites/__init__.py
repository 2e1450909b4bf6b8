"""Test suites of libvirt's clients, on our daemon and our module; see __main__."""
