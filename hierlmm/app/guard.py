"""What stands before the app: requests to another name of this machine, and files sent to be stored, are refused."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

type Receive = Callable[[], Awaitable[Any]]
UPLOAD = re.compile(r"/session/[^/]*/upload/")


def guarded(app: Any) -> Any:
    """The app behind its guard: Shiny stores what is uploaded to it, so nothing may be.

    Parameters
    ----------
    app : shiny.App
    """

    async def guard(scope: Any, receive: Receive, send: Any) -> None:
        if scope["type"] == "http" and UPLOAD.search(scope["path"]):
            await PlainTextResponse("Files are read in the browser, not stored here.", 413)(scope, receive, send)
            return
        await app(scope, receive, send)

    # A page elsewhere whose name was made to point here (DNS rebinding) does not reach the app.
    return TrustedHostMiddleware(guard, allowed_hosts=["127.0.0.1", "localhost"])
