"""One door to the KFP API: authenticated, tried again, plain about what was not done.

`kfp.Client` prints links, writes a file into the home folder and logs answers
with their headers, so the generated client beneath it (`kfp_server_api`) is used
directly. A question is repeated while the API is away; an order (create) is not:
whether it was carried out must be looked up first, see `Unanswered`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from pipelines.kubeflow.answers import (
    Answered,
    Unanswered,
    Unreachable,
    message,
)
from pipelines.kubeflow.session import Session
from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.retry import RetryPolicy

LEAST = (2, 17)
"""Oldest server: holes between namespaces were closed there."""
_TIMEOUT = (5.0, 30.0)  # seconds to connect, seconds between two bytes
_LOGIN = (301, 302, 303, 307, 308, 401)


class Kubeflow:
    """A Kubeflow Pipelines API and our session there."""

    def __init__(self, session: Session, retry: RetryPolicy | None = None) -> None:
        self.session = session
        self.retry = retry or RetryPolicy()
        self._client = _client(session)

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
        found = self.ask("asking for its version", self._healthz)
        if not isinstance(found, dict) or "multi_user" not in found:
            raise InputError(
                f"{self.session.host} is not the API of Kubeflow Pipelines: "
                "/apis/v2beta1/healthz answers with something else; on a Kubeflow "
                "platform the address ends in /pipeline."
            )
        return found

    @property
    def namespace(self) -> str | None:
        """The namespace to name in calls: none in single-user mode."""
        return self.session.namespace if self.health.get("multi_user") else None

    @property
    def version(self) -> str:
        """The server's version; "" if it does not say."""
        tag = str(self.health.get("tag_name", ""))
        return tag if re.match(r"v?\d+\.\d+", tag) else ""

    def require_version(self) -> None:
        """Refuses a server that is too old.

        Raises:
            InputError: it says so itself.
        """
        numbers = re.findall(r"\d+", self.version)[:2]
        if numbers and tuple(map(int, numbers)) < LEAST:
            raise InputError(
                f"Kubeflow Pipelines at {self.session.host} is version {self.version}, "
                f"{'.'.join(map(str, LEAST))} or later is needed."
            )

    def ask(self, action: str, call: Callable[..., Any], **given: Any) -> Any:
        """Asks a question, or orders what may be ordered twice.

        Args:
            action: what is asked, for the sentence, as in "listing runs".
            call: a method of one of the services.
            given: its arguments.

        Raises:
            InputError: not allowed, not found, or not understood.
            Unreachable: the API stayed away until it was given up.
        """
        for wait in self.retry.tries():
            try:
                return self._call(action, call, given)
            except Unreachable:
                if not wait:
                    raise
                time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def order(self, action: str, call: Callable[..., Any], **given: Any) -> Any:
        """Orders something once.

        Raises:
            Unanswered: whether it was carried out is not known.
            InputError, Unreachable: it was not; see `ask`.
        """
        return self._call(action, call, given)

    def pages(
        self, action: str, call: Callable[..., Any], items: str, **given: Any
    ) -> Iterator[Any]:
        """Yields all items of a listing, page by page."""
        token = ""
        while True:
            page = self.ask(action, call, page_size=100, page_token=token, **given)
            yield from getattr(page, items) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def door(self) -> tuple[Any, str]:
        """Returns the connection pool and an address that answers everybody."""
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
        self, action: str, call: Callable[..., Any], given: dict[str, Any]
    ) -> Any:
        """Calls once, and once more with a fresh login if the old one ended."""
        from kfp_server_api.exceptions import ApiException

        self._log_in(again=False)
        try:
            return self._once(action, call, given)
        except ApiException as error:
            if error.status not in _LOGIN or not self.session.has_secret:
                raise self._error(action, error) from None
        self._log_in(again=True)
        try:
            return self._once(action, call, given)
        except ApiException as error:
            raise self._error(action, error) from None

    def _once(
        self, action: str, call: Callable[..., Any], given: dict[str, Any]
    ) -> Any:
        from urllib3.exceptions import HTTPError

        self._client.last_response = None
        try:
            return call(**given, _request_timeout=_TIMEOUT)
        except HTTPError as error:
            raise self._broken(action, error) from None
        except (ValueError, AttributeError, TypeError) as error:
            if self._client.last_response is None:
                raise _refused(action, error) from None
            # What the generated client makes of a page that is no JSON.
            raise Unanswered(
                f"{self.session.host} answers {action} with something that Kubeflow "
                "Pipelines does not say."
            ) from None

    def _log_in(self, *, again: bool) -> None:
        if self.session.password and (again or not self._client.cookie):
            from pipelines.kubeflow.dex import login

            self._client.cookie = login(self.session)

    def _broken(self, action: str, error: Exception) -> SafescaleError:
        """Says why no answer came: a certificate, a dead address, a lost connection."""
        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, SSLError

        host = self.session.host
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, SSLError):
            return InputError(
                f"The certificate of {host} is not trusted; --ca-file says who signed."
            )
        if isinstance(reason, NewConnectionError | ConnectTimeoutError):
            return Unreachable(
                f"Nobody answers at {host} ({action}); check the address, the network "
                "and that Kubeflow Pipelines runs."
            )
        return Unanswered(f"{host} broke off while {action}.")

    def _error(self, action: str, error: Any) -> SafescaleError:
        """Turns an answer that says no into a sentence; headers stay out of it."""
        host, status, said = self.session.host, error.status, message(error.body)
        if status in _LOGIN:
            return InputError(self._unknown_user())
        if status == 403:
            return InputError(
                f"{host} does not allow {action} in namespace "
                f"{self.session.namespace!r}{said}; ask for role kubeflow-edit there."
            )
        if status in self.retry.statuses:
            return Unanswered(f"{host} answers {action} with HTTP {status}{said}.")
        return Answered(status, f"{host} refuses {action} (HTTP {status}{said}).")

    def _unknown_user(self) -> str:
        host = self.session.host
        if self.session.password:
            return f"{host} does not accept the session that Dex gave."
        if self.session.token_file:
            return (
                f"{host} does not accept the token in {self.session.token_file}: it is "
                "expired, or its audience is not pipelines.kubeflow.org."
            )
        return (
            f"{host} wants to know who asks: give --token-file, or set "
            "SAFESCALE_KFP_USER and SAFESCALE_KFP_PASSWORD for a login at Dex."
        )


def equals(**wanted: str) -> str:
    """Returns a filter that lists objects with these values alone."""
    predicates = [
        {"operation": "EQUALS", "key": key, "stringValue": value}
        for key, value in wanted.items()
    ]
    return json.dumps({"predicates": predicates})


def _refused(action: str, error: Exception) -> InputError:
    """Says that the generated client took no arguments such as ours: nothing was sent.

    Only its own complaints are quoted; others may quote a header, hence a token.
    """
    from kfp_server_api.exceptions import OpenApiException

    own = isinstance(error, OpenApiException)
    why = str(error).partition("\n")[0] if own else type(error).__name__
    return InputError(
        f"Nothing was sent for {action}: Kubeflow's client does not take what it was "
        f"given ({why.rstrip('.')})."
    )


def _client(session: Session) -> Any:
    """Builds the generated client; it contacts nobody."""
    import kfp_server_api
    import urllib3

    config = kfp_server_api.Configuration()
    config.host = session.host
    config.ssl_ca_cert = str(session.ca_file) if session.ca_file else None
    # No redirect either: a token must not follow one to a login page.
    config.retries = urllib3.Retry(total=0, redirect=False)
    if session.token_file is not None:
        config.api_key["authorization"] = "read by the hook"
        config.api_key_prefix["authorization"] = "Bearer"
        config.refresh_api_key_hook = lambda c: c.api_key.update(
            authorization=session.token()
        )
    return kfp_server_api.ApiClient(config)
