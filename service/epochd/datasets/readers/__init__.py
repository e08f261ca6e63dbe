"""A module for each kind of file: what is in it, as arrays."""
