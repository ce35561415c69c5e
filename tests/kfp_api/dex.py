"""Dex and its proxy in front of an API: a login page, a session, a cookie.

The steps are those of a Kubeflow platform: a stranger is sent from the API to
the proxy's start page, from there to Dex, which offers its connectors; the
password goes to the connector's login page, an approval may follow, and the
proxy's callback hands out the session cookie.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

COOKIE = "oauth2_proxy_kubeflow"
Shown = tuple[int, bytes, dict[str, str]]


@dataclass
class Dex:
    """One user, and the sessions that were handed out.

    Attributes:
        user, password: what the login page accepts.
        approval: whether Dex asks for an approval after the login.
        start_page: whether the proxy shows a sign-in page (403) first.
    """

    user: str = "user@example.com"
    password: str = "s3cret-of-dex"
    approval: bool = False
    start_page: bool = False
    sessions: set[str] = field(default_factory=set)
    logins: int = 0

    def expire(self) -> None:
        """Ends all sessions."""
        self.sessions.clear()

    def serve(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Shown | None:
        """Answers as proxy and Dex; None lets a request through to the API."""
        path = urlsplit(target).path
        if path == "/oauth2/start":
            return _redirect("/dex/auth?client_id=kubeflow&state=abc")
        if path == "/dex/auth":
            return 200, b"<html>Log in with: local, ldap</html>", {}
        if path == "/dex/auth/local":
            return _redirect("/dex/auth/local/login?back=&state=abc")
        if path == "/dex/auth/local/login":
            return self._login(method, body)
        if path == "/dex/approval":
            granted = method == "POST" and b"approval=approve" in body
            return self._let_in() if granted else (200, b"<html>Grant?</html>", {})
        if path == "/oauth2/callback":
            return self._session()
        if any(f"{COOKIE}={s}" in headers.get("Cookie", "") for s in self.sessions):
            return (200, b"<html>Kubeflow</html>", {}) if path == "/" else None
        if self.start_page:
            return 403, b"<html>Sign in</html>", {}
        return _redirect("/oauth2/start?rd=/")

    def _login(self, method: str, body: bytes) -> Shown:
        if method == "GET":
            return 200, b"<html>login, password</html>", {}
        given = {k: v[0] for k, v in parse_qs(body.decode()).items()}
        if (given.get("login"), given.get("password")) != (self.user, self.password):
            return 200, b"<html>Invalid Email Address and Password</html>", {}
        return _redirect("/dex/approval?req=abc") if self.approval else self._let_in()

    def _let_in(self) -> Shown:
        return _redirect("/oauth2/callback?code=abc&state=abc")

    def _session(self) -> Shown:
        self.logins += 1
        session = secrets.token_hex(8)
        self.sessions.add(session)
        cookie = f"{COOKIE}={session}; Path=/; HttpOnly"
        return 302, b"", {"Location": "/", "Set_Cookie": cookie}


def _redirect(where: str) -> Shown:
    return 302, b"", {"Location": where}
