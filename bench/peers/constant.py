"""The least that FastAPI can do: one ``async def`` endpoint that always answers with the same bytes.

    python bench/peers/constant.py FILE

Answers GET /constant with the content of FILE as JSON, by Uvicorn as ``epochd serve`` configures it; says on its first
line of output where it listens.
"""

import socket
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response


def application(body: bytes) -> FastAPI:
    app = FastAPI()

    @app.get("/constant")
    async def constant() -> Response:
        return Response(body, media_type="application/json")

    return app


def main() -> None:
    app = application(Path(sys.argv[1]).read_bytes())
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    print("http://{}:{}".format(*listener.getsockname()), flush=True)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
