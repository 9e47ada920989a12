"""What a request can be refused with: a status, a sentence, and the same in OpenAI's shape.

    ApiError            the request cannot be served as it is (4xx)
        Busy            it could be, a little later (429 or 503, with Retry-After)
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import Response


class ApiError(Exception):
    """`param` names the field at fault, `code` is for programs, `retry_after` is in seconds."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None,
                 retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after


class Busy(ApiError):
    """Too much to do at the moment."""

    def __init__(self, message: str, retry_after: int, status: int = 429) -> None:
        super().__init__(status, message, code="busy", retry_after=retry_after)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`value` as ASCII JSON, so that no half of a character from a request can break the reply."""
    return Response(dumps(value), status, headers, "application/json")


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def error_response(path: str, error: ApiError) -> Response:
    """The refusal in the shape that clients of this path expect."""
    headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = openai_error(error) if path.startswith("/v1") else {"detail": str(error)}
    return json_response(body, error.status, headers)


def openai_error(error: ApiError) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": str(error), "type": _kind(error.status), "param": error.param, "code": error.code}}


def _kind(status: int) -> str:
    named = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return named.get(status, "server_error" if status >= 500 else "invalid_request_error")
