"""Network interfaces of the host that drivers make: bridges, taps, macvtaps, and the shaping of what passes them."""
