"""What callers in other services use: httpx alone, and nothing of the server."""

from epochd.client.asynchronous import AsyncClient, AsyncJob
from epochd.client.blocking import Client, Job
from epochd.client.series import Series

__all__ = ["AsyncClient", "AsyncJob", "Client", "Job", "Series"]
