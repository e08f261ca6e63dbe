"""The HTTP API: checks what comes in, hands it to ``jobs``, and shows what goes out as ``contract`` says."""

from epochd.api.shared_directory import leave_others_alone

# Here, as it must come before prometheus_client is imported anywhere in this package.
leave_others_alone()
