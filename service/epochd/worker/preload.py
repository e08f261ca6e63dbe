"""Imported by the fork server before it forks: everything slow that a runner needs. It computes nothing with torch."""

import gc
import signal

# A shutdown of the machine sends SIGTERM to every process at once. The server must outlive its runners, for it tells
# the worker how they end; and a runner is not to be ended by it before it can listen.
signal.signal(signal.SIGTERM, signal.SIG_IGN)

import epochd.worker.runner  # noqa: E402, F401
from epochd.datasets import builtin  # noqa: E402

builtin.preload()
# What is loaded here stays for good: a collection in a runner would walk, and so copy, all of its pages, which stopped
# the first iterations for 0.2 s.
gc.collect()
gc.freeze()
