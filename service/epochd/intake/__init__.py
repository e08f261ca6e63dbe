"""From what a caller sent or named to a folder of arrays, in a process of its own: ``python -m epochd.intake``."""
