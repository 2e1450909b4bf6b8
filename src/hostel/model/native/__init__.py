"""Other hypervisors' configuration, to and from domain documents."""
