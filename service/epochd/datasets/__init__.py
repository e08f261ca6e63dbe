"""Files and generators to arrays, and preprocessing. No SQL, no HTTP, no torch."""
