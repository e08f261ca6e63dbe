"""What callers in other services use: httpx alone, and nothing of the server."""
