"""The wire: what callers send and what they get, as Pydantic models. Nothing here does anything."""
