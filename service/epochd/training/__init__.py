"""The engine: torch and numpy only. Importing this package imports neither; its modules do, where needed."""
