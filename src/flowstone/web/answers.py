"""Reading requests and writing answers: bodies and queries in, pages, JSON and files out, with their headers."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import Response

from flowstone.core.clean import mask_secrets, masked_document
from flowstone.web.fields import parse_pairs, plain
from flowstone.web.guard import SAFE, Way
from flowstone.web.problems import Problem
from flowstone.web.registry import Person
from flowstone.web.sharing import compressed
from flowstone.web.static_files import StaticFile

MAX_BODY = 64 * 1024
MAX_QUERY = 16 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that passed the guard, on its way to a handler.

    Args:
        request: as it came.
        way: how it came.
        person: who sends it; None only on routes without a role.
    """

    request: Request
    way: Way
    person: Person | None

    @property
    def method(self) -> str:
        """Of HTTP."""
        return str(self.request.method)


def below(given: list[str]) -> str:
    """Return a place below our prefix, whatever was given: never another host, never another scheme.

    Example:
        >>> below(["/runs?id=1"]), below(["//evil.test"]), below(["https://evil.test"]), below([])
        ('/runs?id=1', '/evil.test', '/', '/')
    """
    place = given[0] if given else ""
    if not place.startswith("/") or not place.isprintable() or len(place) > 4000:
        return "/"
    return "/" + quote(place.lstrip("/\\"), safe="/?&=+,;:@!$'()*%~")


def person_of(exchange: Exchange) -> Person:
    """Return who sends a request to a route with a role."""
    assert exchange.person is not None, "a route with a role has a person"
    return exchange.person


def query_pairs(request: Request) -> list[tuple[str, str]]:
    """Return the names and values of the URL."""
    return _pairs(request.scope.get("query_string", b""), MAX_QUERY)


def query_of(kind: type, request: Request) -> Any:
    """Return the query of the URL as its dataclass."""
    return parse_pairs(kind, query_pairs(request))


def _pairs(encoded: bytes, maximum: int) -> list[tuple[str, str]]:
    if len(encoded) > maximum:
        raise Problem(413, f"That is longer than {maximum // 1024} KiB.", "Ask for less at once.")
    try:
        text = encoded.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=2000, errors="strict") if text else []
    except ValueError as error:
        raise Problem(400, "The names and values cannot be read.", "Encode them as forms do, in UTF-8.") from error


async def _body(request: Request, media_type: str) -> bytes:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != media_type:
        raise Problem(415, f"The body is {given or 'of no type'}; {media_type} is taken here.", "")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Problem(413, f"The body is longer than {MAX_BODY // 1024} KiB.", "Send less at once.")
    return bytes(body)


async def form_pairs(request: Request) -> list[tuple[str, str]]:
    """Return the names and values of a form."""
    return _pairs(await _body(request, "application/x-www-form-urlencoded"), MAX_BODY)


async def document_of(request: Request) -> object:
    """Return the body as JSON."""
    body = await _body(request, "application/json")
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Problem(400, "The body is no JSON.", 'Send {"field": value, ...}.') from error


def html_answer(
    text: str, exchange: Exchange, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a page."""
    return _tagged(text.encode("utf-8", "replace"), "text/html; charset=utf-8", exchange, status, headers or {})


def json_answer(
    value: object,
    exchange: Exchange,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    problem: bool = False,
) -> Response:
    """Answer with a view model as JSON, secrets masked."""
    text = json.dumps(masked_document(plain(value)), ensure_ascii=False, separators=(",", ":"))
    media_type = "application/problem+json" if problem else "application/json"
    return _tagged(text.encode("utf-8", "replace"), media_type, exchange, status, headers or {})


def _tagged(body: bytes, media_type: str, exchange: Exchange, status: int, headers: dict[str, str]) -> Response:
    """Return an answer that browsers keep and ask about each time; the same is not sent again."""
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    sent = {
        "Cache-Control": "private, no-cache" if status == 200 else "no-store",
        "Vary": "Cookie, Accept-Encoding, Authorization",
        **headers,
    }
    if status == 200:
        sent["ETag"] = tag
        if exchange.method in SAFE and exchange.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=sent)
    if len(body) > 500 and "gzip" in exchange.request.headers.get("accept-encoding", ""):
        body, sent["Content-Encoding"] = compressed(body), "gzip"
    return Response(body, status_code=status, media_type=media_type, headers=sent)


def file_answer(name: str, text: str, exchange: Exchange) -> Response:
    """Answer with text that a browser stores; of its name only what is safe everywhere is left."""
    shown = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:100] or "file.txt"
    headers = {"Content-Disposition": f'attachment; filename="{shown}"'}
    content = mask_secrets(text).encode("utf-8", "replace")
    return _tagged(content, "text/plain; charset=utf-8", exchange, 200, headers)


async def send_file(file: StaticFile, exchange: Exchange) -> Response:
    """Answer with a file that browsers keep."""
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
    content = file.content
    if "gzip" in exchange.request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = file.compressed, "gzip"
    return Response(content, media_type=file.media_type, headers=headers)


def set_cookie(response: Response, name: str, value: str, way: Way, *, seconds: int) -> None:
    """Keep something in the browser that no script reads; 0 seconds takes it out."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/" if name.startswith("__Host-") else way.cookie_path,
        secure=way.secure,
        httponly=True,
        samesite="lax",
    )
