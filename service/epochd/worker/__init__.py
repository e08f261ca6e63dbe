"""The worker: claims jobs, runs each attempt in a process of its own, and brings it to its end.

``worker.py`` composes the moving parts; ``slots.py`` claims and follows attempts; ``executors/`` start processes;
``runner.py`` is what such a process does; ``recorder.py`` writes what it yields; ``presence.py`` says that the
worker lives; ``reaper.py`` finds attempts whose lease has expired.
"""
