"""Filters: nodes that show another node's bytes and change or watch how they are reached."""
