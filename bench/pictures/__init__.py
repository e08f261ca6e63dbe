"""Pictures of what the benchmarks found."""
