"""Imported by the fork server before it forks: everything slow that a runner needs. It computes nothing with torch."""

import gc

import epochd.worker.runner  # noqa: F401
from epochd.datasets import builtin

builtin.preload()
# What is loaded here stays for good: a collection in a runner would walk, and so copy, all of its pages, which stopped
# the first iterations for 0.2 s.
gc.collect()
gc.freeze()
