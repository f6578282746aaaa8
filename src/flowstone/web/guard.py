"""What every request passes before anything else: where it is sent to, where it comes from, and on which way.

Nothing here reads `request.url`, which is put together from headers that anyone can write: the path is that of the
ASGI scope, the host is compared with a list, and `X-Forwarded-*` count only from the addresses of known proxies.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers

from flowstone.errors import ConfigurationError
from flowstone.web.problems import Problem

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SAFE = frozenset({"GET", "HEAD"})
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Sent with every answer, errors and files included."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a request came here.

    Args:
        path: below the dashboard, beginning with a slash.
        prefix: where the dashboard is mounted, as addresses have it, without a slash at the end.
        host: name and port, as the browser wrote them.
        scheme: `http` or `https`, as the browser used it.
        client: address of the sender.
        proxied: whether a trusted proxy sent it on.
    """

    path: str
    prefix: str
    host: str
    scheme: str
    client: str
    proxied: bool

    @property
    def secure(self) -> bool:
        """Whether the browser came by https."""
        return self.scheme == "https"

    @property
    def cookie_path(self) -> str:
        """Where cookies of the dashboard are sent to."""
        return f"{self.prefix}/" if self.prefix else "/"


@dataclass(frozen=True, slots=True)
class Guard:
    """Where requests may be sent to, and which proxies may speak for others.

    Args:
        hosts: names of this server besides those of loopback, such as `flow.example.com` or `*.example.com`.
        proxies: addresses or networks whose `X-Forwarded-*` headers count.
        prefix: below which a proxy serves the dashboard, whether it strips that or not.
    """

    hosts: tuple[str, ...] = ()
    proxies: tuple[Any, ...] = field(default=())
    prefix: str = ""

    @classmethod
    def of(cls, allowed_hosts: Iterable[str], trusted_proxies: Iterable[str], prefix: str = "") -> Guard:
        """Check the settings.

        Raises:
            ConfigurationError: one of them cannot work.

        Example:
            >>> Guard.of(["flow.example.com"], ["10.0.0.0/8"]).proxies
            (IPv4Network('10.0.0.0/8'),)
        """
        for option, given in (("allowed_hosts", allowed_hosts), ("trusted_proxies", trusted_proxies)):
            if isinstance(given, str):
                raise ConfigurationError(f"{option}={given!r}: give a list, [{given!r}].")
        networks = []
        for one in trusted_proxies:
            try:
                networks.append(ipaddress.ip_network(one, strict=False))
            except ValueError as error:
                raise ConfigurationError(
                    f"trusted_proxies: {one!r} is no address or network, such as 10.0.0.5 or 10.0.0.0/8."
                ) from error
        hosts = tuple(str(one).strip().lower() for one in allowed_hosts)
        for host in hosts:
            if not host or "/" in host or host == "*":
                raise ConfigurationError(
                    f"allowed_hosts: {host!r} is no name of a host. Give each name, such as flow.example.com or "
                    "*.example.com; a list that allows every host would let any web page read the dashboard."
                )
        prefix = prefix.rstrip("/")
        if not _is_prefix(prefix) or set(prefix) & set("?#%"):
            raise ConfigurationError(f"prefix={prefix!r} is no path: write one such as /ops/flowstone.")
        return cls(hosts, tuple(networks), prefix)

    def way(self, scope: Mapping[str, Any], headers: Headers) -> Way:
        """Return how a request came here.

        Raises:
            Problem: 421; it was sent to a host that is not ours.
        """
        client = (scope.get("client") or ("", 0))[0]
        proxied = self._is_proxy(client)
        prefix = str(scope.get("root_path", "")).rstrip("/")
        host, scheme = headers.get("host", ""), str(scope.get("scheme", "http"))
        path = str(scope["path"])
        for outer in (prefix, self.prefix):
            if outer and (path == outer or path.startswith(f"{outer}/")):
                path = path[len(outer) :]
        prefix += self.prefix
        prefix = quote(prefix)  # a path of ASGI is decoded, an address is not
        if proxied:
            host = headers.get("x-forwarded-host", host).split(",")[0].strip()
            scheme = headers.get("x-forwarded-proto", scheme).split(",")[-1].strip().lower()
            client = headers.get("x-forwarded-for", client).split(",")[-1].strip()
            stripped = headers.get("x-forwarded-prefix", "").rstrip("/")
            prefix = quote(stripped, safe="/%") + prefix if _is_prefix(stripped) else prefix
        if not self.allows(host):
            raise Problem(
                421,
                f"This dashboard does not answer for the host {host[:200]!r}.",
                "Use the address that it was started with, or add the name to allowed_hosts "
                "(`flowstone web --allow-host NAME`).",
            )
        return Way(path or "/", prefix, host, "https" if scheme == "https" else "http", client, proxied)

    def allows(self, host: str) -> bool:
        """Whether a `Host` header names this server.

        Example:
            >>> guard = Guard(("*.example.com",))
            >>> guard.allows("flow.example.com:8000"), guard.allows("localhost:4300"), guard.allows("evil.test")
            (True, True, False)
        """
        name, colon, port = host.lower().rpartition(":")
        if not colon or not port.isdecimal():
            name = host.lower()
        name = name.removesuffix(".")
        return name in LOOPBACK or any(
            name == one or (one.startswith("*.") and name.endswith(one[1:]) and len(name) > len(one) - 1)
            for one in self.hosts
        )

    def _is_proxy(self, client: str) -> bool:
        if not self.proxies:
            return False
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in network for network in self.proxies)


def _is_prefix(text: str) -> bool:
    return not text or (
        text.startswith("/") and not text.startswith("//") and text.isprintable() and len(text) < 200
    )


def check_origin(method: str, way: Way, headers: Headers) -> None:
    """Refuse what another site has a browser send: every method but GET and HEAD, and reads by scripts.

    Browsers send `Sec-Fetch-Site`, older ones `Origin`; what sends neither is no browser and needs a token.

    Raises:
        Problem: 403.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if method in SAFE:
        # opening a link from elsewhere is a read that shows the page to the person; scripts and frames are not
        if site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") not in (None, "navigate"):
            raise _foreign(site)
        return
    if site is not None:
        if site not in ("same-origin", "none"):
            raise _foreign(site)
    elif origin is not None:
        if origin.lower() != f"{way.scheme}://{way.host.lower()}":
            raise _foreign(origin)
    elif not headers.get("authorization", "").lower().startswith("bearer "):
        raise Problem(
            403,
            "The request says neither by Sec-Fetch-Site nor by Origin which page it comes from.",
            "Scripts use the JSON API with a token: `flowstone web token NAME`.",
        )


def _foreign(source: str) -> Problem:
    return Problem(
        403, f"The request comes from another site ({source[:200]!r}).", "Open the dashboard and do it there."
    )
