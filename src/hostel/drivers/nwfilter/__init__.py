"""What network filters are to the host: rules of ebtables, iptables and ip6tables."""
