"""The application: both APIs, the page, and how every error becomes the reply that its path's clients expect."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from engine.serving import nanochat_api, openai_api
from engine.serving.errors import ApiError, error_response, json_response
from engine.serving.guard import Guard
from engine.serving.page import LOGO, page
from engine.serving.shelf import Shelf


def build(shelf: Shelf, token: str | None, names: Iterable[str] = ()) -> ASGIApp:
    """The guarded application over a shelf of models, which is closed with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(shelf.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.shelf = shelf
    app.include_router(nanochat_api.router)
    app.include_router(openai_api.router)
    app.add_api_route("/", _page, methods=["GET"])
    app.add_api_route("/logo.svg", _logo, methods=["GET"])
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _misshapen)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)
    return Guard(app, token, names)


async def _page() -> Response:
    html, policy = page()
    return Response(html, media_type="text/html; charset=utf-8", headers={"content-security-policy": policy})


async def _logo() -> Response:
    return Response(LOGO, media_type="image/svg+xml", headers={"content-security-policy": "default-src 'none'"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(request.url.path, error)


async def _misshapen(request: Request, error: Exception) -> Response:
    """422 with where and why; the input itself is not repeated."""
    assert isinstance(error, RequestValidationError)
    rows = [{"type": e["type"], "loc": list(e["loc"]), "msg": e["msg"]} for e in error.errors()[:20]]
    return json_response({"detail": rows}, 422)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(request.url.path, ApiError(error.status_code, str(error.detail)))


async def _unforeseen(request: Request, error: Exception) -> Response:
    """Nobody but the server's own log sees a traceback."""
    traceback.print_exception(error)
    return error_response(request.url.path, ApiError(500, "the server failed on this request; its log says more"))
