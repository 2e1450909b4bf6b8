"""Protocol drivers: where bytes come from."""
