"""The least that a server can do with an upload: write what comes to a file, and say how much it was.

    python bench/peers/receiving.py FOLDER

Takes POST /copy, by Uvicorn as ``epochd serve`` configures it; says on its first line of output where it listens.
"""

import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def application(folder: Path) -> Starlette:
    async def copy(request: Request) -> JSONResponse:
        size = 0
        with (folder / "copy").open("wb") as file:
            async for piece in request.stream():
                size += len(piece)
                file.write(piece)
        return JSONResponse({"bytes": size}, 201)

    return Starlette(routes=[Route("/copy", copy, methods=["POST"])])


def main() -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print("http://{}:{}".format(*listener.getsockname()), flush=True)
    config = uvicorn.Config(
        application(Path(sys.argv[1])),
        loop="asyncio",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
    )
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
