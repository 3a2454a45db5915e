"""``hierlmm app``: serve the app to this machine, and open a browser."""

from __future__ import annotations

import socket
import threading
import webbrowser
from contextlib import suppress
from typing import Any

from hierlmm.errors import MissingPackageError, SpecificationError

HOST = "127.0.0.1"
SEE = "docs, page 'Teaching app'"
SOON = 0.5
"""Seconds until the server answers."""


def open_port(port: int) -> socket.socket:
    """A socket on this machine's own address; nobody else's machine reaches it.

    Raises
    ------
    SpecificationError
        If the port is in use, or none that may be used.
    """
    if not 0 <= port <= 65535:
        raise SpecificationError(f"--port {port}", "ports are whole numbers from 0 to 65535", "use --port 8000", SEE)
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen(128)
    except OSError as error:
        found.close()
        reason = f"another program uses it, or you may not ({error.strerror})"
        remedy = (
            f"use another one, hierlmm app --port {port + 1 if port < 65535 else 8000}, or --port 0 for any free one"
        )
        raise SpecificationError(f"--port {port}", reason, remedy, SEE) from error
    return found


def import_server() -> Any:
    """The server, whose packages are an extra.

    Raises
    ------
    MissingPackageError
    """
    try:
        import shiny  # noqa: F401
        import uvicorn
    except ImportError as error:
        reason, remedy = f"it needs the package {error.name}, which is not installed", 'run: pip install "hierlmm[app]"'
        raise MissingPackageError("hierlmm app", reason, remedy, SEE) from error
    return uvicorn


def serve(port: int, *, browser: bool = True) -> None:
    """Serve until Ctrl-C.

    Parameters
    ----------
    port : int
        0 for any free one.
    browser : bool
        Open the page in the browser.
    """
    uvicorn = import_server()
    with open_port(port) as door:
        from hierlmm.app.guard import guarded
        from hierlmm.app.server import make_app

        address = f"http://{HOST}:{door.getsockname()[1]}/"
        config = uvicorn.Config(guarded(make_app()), log_level="warning", lifespan="on", ws="auto")
        print(f"The app is at {address} (this machine only). Ctrl-C ends it.", flush=True)
        if browser:
            opening = threading.Timer(SOON, webbrowser.open, [address])
            opening.daemon = True
            opening.start()
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[door])
    print("The app has ended.", flush=True)
