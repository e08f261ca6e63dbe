"""``python -m epochd`` is the ``epochd`` command."""

from epochd.cli import main

main()
