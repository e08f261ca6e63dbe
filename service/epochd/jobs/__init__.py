"""The rules: what may happen to a job, and what is recorded when it does. Plain functions over the store."""
