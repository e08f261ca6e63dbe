"""Marks that several rooms use."""

import pytest

# What such a test is about happens between processes or connections: on Postgres it is part of the long proofs.
postgres_in_torture = pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.torture)], indirect=True
)
