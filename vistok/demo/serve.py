"""The server of the page: this machine only unless told otherwise, and nothing from elsewhere.

Gradio reports its use, looks for updates and offers links through its own servers unless it is told
not to; all of that is off. A content security policy forbids the page to ask any other host.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vistok.config.errors import InputError

if TYPE_CHECKING:
    from vistok.demo.models import Models

PORT = 7860
_TRIED = 50  # ports from PORT on, if none is asked for
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'"
)
_HEADERS = {
    b"content-security-policy": _POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


def check_installed() -> None:
    """InputError, one line, if gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError("the playground needs gradio: pip install 'vistok[demo]'")


def is_loopback(host: str) -> bool:
    """True for an address that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Served:
    """A running page."""

    url: str
    blocks: Any

    def wait(self) -> None:
        """Until the process is interrupted."""
        self.blocks.block_thread()


class _Headers:
    """ASGI middleware: the same headers on every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS.items()]
            await send(message)

        await self.app(scope, receive, with_headers)


@contextlib.contextmanager
def served(models: Models, host: str = "127.0.0.1", port: int | None = None) -> Iterator[Served]:
    """The page, running in a thread; it ends, and its uploaded files go, with the block.

    Args:
        port: None = the first free one from 7860 on.
    Raises InputError if gradio is not installed and for a port that is taken.
    """
    check_installed()
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    with tempfile.TemporaryDirectory(prefix="vistok-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when components are made
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from vistok.demo import page
        from vistok.demo.images import photographs

        middleware = [Middleware(_Headers)]
        if (
            is_loopback(host) and ":" not in host
        ):  # else any site could name this address as its own
            named = ["127.0.0.1", "localhost", host]
            middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=named))
        _warm(models)
        blocks = page.build(models).queue(default_concurrency_limit=4)
        try:
            _, url, _ = blocks.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                max_file_size="30mb",
                allowed_paths=[str(file) for file in photographs().values()],
                theme=page.theme(),
                css_paths=page.STYLE,
                app_kwargs={"middleware": middleware},
                num_workers=0,
            )
        except OSError as error:
            raise InputError(_busy(host, port, error)) from None
        try:
            yield Served(url, blocks)
        finally:
            blocks.close(verbose=False)


def _warm(models: Models) -> None:
    """Make each view once: libraries are imported by their first use, which a visitor would wait
    for."""
    from vistok.demo import views
    from vistok.demo.images import photographs
    from vistok.demo.visit import FIRST, Visit

    visit, names = Visit(), models.names[:1]
    for path in list(photographs().values())[:1]:
        visit.take(FIRST, path)
        views.reconstructions(models, visit, names, 0)
        views.comparison(models, visit, names, 0)
        views.tokens(models, visit, names, 0, 10, "neighbours", 4, 0)


def _busy(host: str, port: int | None, error: OSError) -> str:
    where = f"{host}:{port}" if port else f"{host}:{PORT}..{PORT + _TRIED}"
    return f"{where}: cannot listen there ({str(error).splitlines()[0]}); name another --port"
