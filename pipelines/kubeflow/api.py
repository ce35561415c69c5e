"""Calls of the KFP API: authenticated, retried, plain about what was not done.

`kfp.Client` prints links, writes a file into the home folder and logs answers
with their headers, so the generated client beneath it (`kfp_server_api`) is used
directly. A call that may be repeated is retried while the API is away; one that
creates something is not: whether it took effect must be looked up first, see
`LostAnswer`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from pipelines.kubeflow.answers import (
    LostAnswer,
    Rejection,
    Unreachable,
    disconnection,
    is_final,
    message,
)
from pipelines.kubeflow.denials import ROLE, denial, hint_of_upload
from pipelines.kubeflow.session import Session
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.retry import RetryPolicy

# KFP 2.17 closes holes between namespaces.
OLDEST_VERSION = (2, 17)
_TIMEOUT = (5.0, 30.0)  # seconds to connect, seconds between two bytes
# A login before the API redirects a stranger to its page; the API itself says 401.
_NOT_LOGGED_IN = (301, 302, 303, 307, 308, 401)


class Kubeflow:
    """A Kubeflow Pipelines API and our session there."""

    def __init__(self, session: Session, retry: RetryPolicy | None = None) -> None:
        self.session = session
        self.retry = retry or RetryPolicy()
        self._client = session.client()

    @cached_property
    def runs(self) -> Any:
        """Calls about runs."""
        return self._service("RunServiceApi")

    @cached_property
    def schedules(self) -> Any:
        """Calls about recurring runs."""
        return self._service("RecurringRunServiceApi")

    @cached_property
    def experiments(self) -> Any:
        """Calls about experiments."""
        return self._service("ExperimentServiceApi")

    @cached_property
    def pipelines(self) -> Any:
        """Calls about pipelines and their versions."""
        return self._service("PipelineServiceApi")

    @cached_property
    def uploads(self) -> Any:
        """Calls that bring a pipeline's file."""
        return self._service("PipelineUploadServiceApi")

    @cached_property
    def health(self) -> dict[str, Any]:
        """What the server says of itself: tag_name, multi_user, ...

        The generated model leaves the version out, so the answer is read raw.
        """
        health = self.call("asking for its version", self._healthz)
        # A platform's front page answers every path, with 200 and other contents.
        if not isinstance(health, dict) or "multi_user" not in health:
            raise InputError(
                f"{self.session.host} is not the API of Kubeflow Pipelines: "
                "/apis/v2beta1/healthz answers with something else; on a Kubeflow "
                "platform the address ends in /pipeline."
            )
        return health

    @property
    def namespace(self) -> str | None:
        """The namespace to name in calls: none in single-user mode."""
        return self.session.namespace if self.health.get("multi_user") else None

    @property
    def scope(self) -> dict[str, str]:
        """The arguments of a listing that keep it in the session's namespace."""
        return {"namespace": self.namespace} if self.namespace else {}

    @property
    def version(self) -> str:
        """The server's version; "" if it does not say."""
        tag = str(self.health.get("tag_name", ""))
        # A build of one's own states whatever its builder put there.
        return tag if re.match(r"v?\d+\.\d+", tag) else ""

    def require_version(self) -> None:
        """Refuses a server that is too old.

        Raises:
            InputError: it says so itself.
        """
        numbers = re.findall(r"\d+", self.version)[:2]
        # Numbers, not text: "2.9" sorts after "2.17". No number is no refusal, since
        # people do run builds of their own.
        if numbers and tuple(map(int, numbers)) < OLDEST_VERSION:
            raise InputError(
                f"Kubeflow Pipelines at {self.session.host} is version {self.version}, "
                f"{'.'.join(map(str, OLDEST_VERSION))} or later is needed."
            )

    def call(self, action: str, method: Callable[..., Any], **arguments: Any) -> Any:
        """Calls what may be called twice, again and again while the API is away.

        Args:
            action: what is done, for the sentence, as in "listing runs".
            method: of one of the services.
            **arguments: of the method.

        Raises:
            InputError: not allowed, not found, or not understood.
            Unreachable: the API stayed away until it was given up.
        """
        for wait in self.retry.tries():
            try:
                return self._call(action, method, arguments)
            except Unreachable:
                if not wait:
                    raise
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def call_once(
        self, action: str, method: Callable[..., Any], **arguments: Any
    ) -> Any:
        """Calls what must not be called twice; see `call` for the arguments.

        Raises:
            LostAnswer: whether it took effect is not known.
            InputError, Unreachable: it did not.
        """
        return self._call(action, method, arguments)

    def pages(
        self, action: str, method: Callable[..., Any], items: str, **arguments: Any
    ) -> Iterator[Any]:
        """Yields all items of a listing, page by page.

        Args:
            action: what is done, for the sentence.
            method: a listing of one of the services.
            items: attribute of an answer that holds a page's items.
            **arguments: of the method.
        """
        token = ""
        while True:
            page = self.call(
                action,
                method,
                page_size=100,  # 20 by default, 200 at most
                page_token=token,
                **arguments,
            )
            # The generated client gives None for a list that is empty.
            yield from getattr(page, items) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def health_endpoint(self) -> tuple[Any, str]:
        """Returns the connection pool and an address that answers without a login."""
        pool = self._client.rest_client.pool_manager
        return pool, f"{self.session.host}/apis/v2beta1/healthz"

    def _service(self, name: str) -> Any:
        import kfp_server_api

        return getattr(kfp_server_api, name)(self._client)

    def _healthz(self, **options: Any) -> Any:
        return self._client.call_api(
            "/apis/v2beta1/healthz",
            "GET",
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            **options,
        )

    def _call(
        self, action: str, method: Callable[..., Any], arguments: dict[str, Any]
    ) -> Any:
        """Calls once, and once more with a fresh login if the old one ended."""
        from kfp_server_api.exceptions import ApiException

        self._log_in(again=False)
        try:
            return self._send(action, method, arguments)
        except ApiException as error:
            if error.status not in _NOT_LOGGED_IN or not self.session.has_secret:
                raise self._rejection(action, error) from None
        # A call that met the login never reached the API, so that even one which must
        # not be repeated may be sent again. A token's file is read anew for it.
        self._log_in(again=True)
        try:
            return self._send(action, method, arguments)
        except ApiException as error:
            raise self._rejection(action, error) from None

    def _log_in(self, *, again: bool) -> None:
        if self.session.password and (again or not self._client.cookie):
            from pipelines.kubeflow.dex import login

            self._client.cookie = login(self.session)

    def _send(
        self, action: str, method: Callable[..., Any], arguments: dict[str, Any]
    ) -> Any:
        """Sends one request; the errors of `call_once`, and `ApiException` for a no."""
        from kfp_server_api.exceptions import OpenApiException
        from urllib3.exceptions import HTTPError

        # The generated client raises the same errors for arguments that it does not
        # take and for a page that is no JSON. Only after the second has it an answer.
        self._client.last_response = None
        try:
            return method(**arguments, _request_timeout=_TIMEOUT)
        except HTTPError as error:
            raise disconnection(self.session.host, action, error) from None
        except (ValueError, AttributeError, TypeError) as error:
            if self._client.last_response is not None:
                raise LostAnswer(
                    f"{self.session.host} answers {action} with something that "
                    "Kubeflow Pipelines does not say."
                ) from None
            # Only the client's own complaints are quoted: another error may hold a
            # header, hence a token.
            own = isinstance(error, OpenApiException)
            why = str(error).partition("\n")[0] if own else type(error).__name__
            raise InputError(
                f"Nothing was sent for {action}: Kubeflow's client does not take what "
                f"it was given ({why.rstrip('.')})."
            ) from None

    def _rejection(self, action: str, error: Any) -> SafescaleError:
        """Turns an answer that says no into a sentence; headers stay out of it."""
        session, status, reason = self.session, error.status, message(error.body)
        host = session.host
        if status in _NOT_LOGGED_IN and session.password:
            return InputError(f"{host} does not accept the session that Dex gave.")
        if status in _NOT_LOGGED_IN and session.token_file:
            return InputError(
                f"{host} does not accept the token in {session.token_file}: it is "
                "expired, or its audience is not pipelines.kubeflow.org."
            )
        if status in _NOT_LOGGED_IN:
            return InputError(
                f"{host} wants to know who asks: give --token-file, or set "
                "SAFESCALE_KFP_USER and SAFESCALE_KFP_PASSWORD for a login at Dex."
            )
        if status == 403:
            who = denial(error.body)
            why = f": {who}" if who else f" in namespace {session.namespace!r}{reason}"
            return InputError(f"{host} does not allow {action}{why}; {ROLE}.")
        if status in self.retry.statuses and not is_final(error.body):
            # A gateway says 502 or 504 of a request that the API may have carried out.
            return LostAnswer(f"{host} answers {action} with HTTP {status}{reason}.")
        hint = hint_of_upload(status, reason)
        said = f"{host} refuses {action} (HTTP {status}{reason}){hint}."
        return Rejection(status, said)


def equals(**values: str) -> str:
    """Returns a filter that lists objects with these values alone."""
    predicates = [
        {"operation": "EQUALS", "key": key, "stringValue": value}
        for key, value in values.items()
    ]
    return json.dumps({"predicates": predicates})
