"""libvirt's own test data, run through our model; ``python -m libvirt_data --help`` says how."""
