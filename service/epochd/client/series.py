"""What a job recorded, by column."""

from collections.abc import Iterator, Mapping
from typing import Any


class Series(Mapping[str, list[Any]]):
    """Columns of equal length, by name; ``None`` where there is no value."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        rows = max((len(column) for column in self._columns.values()), default=0)
        return f"<{rows} rows of {', '.join(self._columns)}>"

    @classmethod
    def of_rows(cls, rows: list[dict[str, Any]]) -> "Series":
        """Make it of rows; a column that a row lacks is None there."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        return cls({name: [row.get(name) for row in rows] for name in names})

    def to_pandas(self) -> Any:
        """Give a ``pandas.DataFrame``. Raises ImportError where pandas is not installed."""
        try:
            import pandas as pd  # noqa: PLC0415 - whoever wants it has it
        except ImportError:
            raise ImportError("to_pandas() needs pandas: pip install pandas") from None
        return pd.DataFrame(self._columns)
