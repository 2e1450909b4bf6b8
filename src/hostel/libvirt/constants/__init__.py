"""libvirt 9.0's constants by subject; :mod:`hostel.libvirt` has all of them."""
