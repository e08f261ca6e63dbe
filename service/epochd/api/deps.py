"""What endpoints are given: taken from ``app.state``, where ``create_app`` put it."""

import re
from typing import Annotated, Final

from fastapi import Depends, Path, Request

from epochd.api.feed import Feed
from epochd.api.job_board import JobBoard
from epochd.errors import NotFoundError
from epochd.settings import Settings
from epochd.store.database import Database

_JOB_ID: Final = re.compile(r"[A-Za-z0-9_]{1,64}")


# These are `async` because that costs no thread; they only look something up.
async def get_settings(request: Request) -> Settings:
    """Give the settings of this process."""
    settings = request.app.state.settings
    assert isinstance(settings, Settings)
    return settings


async def get_database(request: Request) -> Database:
    """Give the database of this process."""
    database = request.app.state.database
    assert isinstance(database, Database)
    return database


async def get_feed(request: Request) -> Feed:
    """Give the feed that tells of changes."""
    feed = request.app.state.feed
    assert isinstance(feed, Feed)
    return feed


async def get_board(request: Request) -> JobBoard:
    """Give the board on which jobs are shown."""
    board = request.app.state.board
    assert isinstance(board, JobBoard)
    return board


async def get_job_id(
    job_id: Annotated[str, Path(description="The id of a job.", examples=["job_01k9v7f6zqk3m5t8w2x4y6a8bc"])],
) -> str:
    """Give the job id of the path.

    Raises:
        NotFoundError: no job has such an id.

    """
    if not _JOB_ID.fullmatch(job_id):
        raise NotFoundError("There is no such job; ids look like job_01k….", code="job_not_found")
    return job_id


SettingsDep = Annotated[Settings, Depends(get_settings)]
DatabaseDep = Annotated[Database, Depends(get_database)]
FeedDep = Annotated[Feed, Depends(get_feed)]
BoardDep = Annotated[JobBoard, Depends(get_board)]
JobIdDep = Annotated[str, Depends(get_job_id)]
