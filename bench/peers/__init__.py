"""Training loops that are measured against each other. Each module but ``workload`` is one way to train."""
