"""The HTTP API: checks what comes in, hands it to ``jobs``, and shows what goes out as ``contract`` says."""
