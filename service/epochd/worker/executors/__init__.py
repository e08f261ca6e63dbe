"""Ways to start the process that runs an attempt."""
