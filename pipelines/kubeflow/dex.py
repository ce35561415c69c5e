"""A login at Dex for a program: the pages that a browser would pass.

A Kubeflow platform sends a stranger from the API to oauth2-proxy (or the older
authservice), from there to Dex, and back with a session cookie. The steps are those
that Kubeflow's documentation describes for its SDK.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from pipelines.kubeflow.session import Session, in_the_clear
from safescale_ammt.errors import InputError, SafescaleError

_TIMEOUT = (5.0, 30.0)  # seconds to connect, seconds between two bytes
# Dex's own list of users; a program cannot walk through another provider's pages.
_CONNECTOR = "local"


def login(session: Session) -> str:
    """Logs in and returns the cookies that the API's host wants to see.

    Raises:
        InputError: user or password is wrong, or no login stands before the API.
        SafescaleError: a page is missing or nobody answers.
    """
    import requests
    from requests.cookies import get_cookie_header

    with requests.Session() as browser:
        browser.verify = str(session.ca_file) if session.ca_file else True
        browser.trust_env = False  # a .netrc must not add credentials of its own
        try:
            page = _login_page(browser, session)
            answer = browser.post(
                page,
                data={"login": session.user, "password": session.password},
                timeout=_TIMEOUT,
            )
            _expect_page(answer, session)
            # Dex redirects whom it lets in, and shows everybody else the form again.
            if not answer.history:
                raise InputError(
                    f"Dex at {_origin(page)} does not accept the user or password in "
                    "SAFESCALE_KFP_USER and SAFESCALE_KFP_PASSWORD."
                )
            # Unless skipApprovalScreen is set, Dex asks what the client may know.
            if urlsplit(answer.url).path.endswith("/approval"):
                consent = {"approval": "approve"}
                answer = browser.post(answer.url, data=consent, timeout=_TIMEOUT)
                _expect_page(answer, session)
        except requests.RequestException as error:
            # Its text may quote a URL with the login's state.
            raise SafescaleError(
                f"The login at {session.host} broke off: {type(error).__name__}; check "
                "address, certificate (--ca-file) and network."
            ) from None
        # The cookies for the API alone: Dex's own stay with Dex.
        api = requests.Request("GET", f"{session.host}/")
        cookies = get_cookie_header(browser.cookies, api)
    if not cookies:
        raise SafescaleError(
            f"The login at {session.host} succeeded, but gave no session."
        )
    return str(cookies)


def _login_page(browser: Any, session: Session) -> str:
    """Follows redirects to the page that takes a password; returns its URL.

    Raises:
        InputError: no login stands before the API, another one than Dex's, or one
            that would take the password in the clear.
        SafescaleError: a page is missing.
    """
    answer = browser.get(f"{session.host}/", timeout=_TIMEOUT)
    if answer.status_code == 403:
        # oauth2-proxy may show a button instead of sending us on.
        back = urlencode({"rd": urlsplit(answer.url).path})
        start = urljoin(answer.url, f"/oauth2/start?{back}")
        answer = browser.get(start, timeout=_TIMEOUT)
    _expect_page(answer, session)
    if not answer.history:
        raise InputError(
            f"{session.host} asks for no login; unset SAFESCALE_KFP_USER and "
            "SAFESCALE_KFP_PASSWORD, or give another --host."
        )
    parts = urlsplit(answer.url)
    if parts.path.endswith("/auth"):
        # With several connectors Dex shows a list of them; a link names one by its id.
        local = parts._replace(path=f"{parts.path}/{_CONNECTOR}")
        answer = browser.get(local.geturl(), timeout=_TIMEOUT)
        _expect_page(answer, session)
    if not re.search(r"/auth/.*/?login$", urlsplit(answer.url).path):
        raise InputError(
            f"{_origin(answer.url)} shows no login page of Dex; another identity "
            "provider stands before the API, which needs --token-file."
        )
    # The session checks the API's address alone, and Dex may live at another.
    if in_the_clear(answer.url):
        raise InputError(
            f"{session.host} sends its login to {_origin(answer.url)}, which is not "
            "encrypted, so no password went there; give Dex an https:// address."
        )
    return str(answer.url)


def _expect_page(answer: Any, session: Session) -> None:
    if answer.status_code != 200:
        raise SafescaleError(
            f"The login at {session.host} ends with HTTP {answer.status_code} of "
            f"{_origin(answer.url)}{urlsplit(answer.url).path}."
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
