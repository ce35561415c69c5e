"""What libraries log while a stage or command of ours runs: errors, and no secret.

A webhook's path, an identity token in a query, a header with a key: whoever speaks
HTTP logs what it sends, and KFP's executor turns the logging of every library on
(kfp 2.17, dsl/executor_main.py, `_setup_logging`), so that it would stand in the log
of a pod, which Argo archives. One rule for all of them, then: of what no package of
ours logs, errors alone come through, and of an address in them its host.

Levels would not do: the clients that OpenAPI generates set those of `urllib3` back
when they are made (kubernetes and kfp_server_api, `Configuration.debug`).
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

OURS = ("root", "safescale_ammt", "pipelines", "components", "images", "benchmarks")
"""Loggers whose lines are ours, and the root, which KFP's executor logs by."""
TALKATIVE = (
    *("asyncio", "docker", "google", "kfp_server_api", "kubernetes", "matplotlib"),
    *("minio", "requests", "urllib3"),
)
"""Loggers that are quiet for whoever listens elsewhere than at the root, too."""
_HIDDEN = "..."
_SECRETS = (
    # An address, and what stands before its host; after the host a slash may follow.
    (re.compile(r"\b(https?|wss?|ftp)://(?:[^\s/@'\"]*@)?([^\s/?#'\"<>]+)[^\s'\"<>]*"),
     rf"\1://\2/{_HIDDEN}"),
    # urllib3's own way to say where to: `... exceeded with url: /path?query`.
    (re.compile(r"\b(url: ?|url=)[^\s'\")]+"), rf"\1{_HIDDEN}"),
    # The first line of a request.
    (re.compile(r"\b(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) +[^\s'\"]+"),
     rf"\1 {_HIDDEN}"),
    # Headers and fields, whose value ends where the line or the quotation does.
    (re.compile(
        r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|[\w-]*(?:token|secret|"
        r"password|signature|credential|api[-_]?key|access[-_]?key(?:[-_]?id)?))"
        r"(['\"]?\s*[:=]\s*['\"]?)[^'\"\r\n&]+"),
     rf"\1\2{_HIDDEN}"),
)  # fmt: skip


def without_secrets(text: str) -> str:
    """Returns a library's text without what may be secret in an address or header."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps libraries' lines out of the log while the body runs; not their errors.

    Ours stay: they tell of what the user's store or cluster does.
    """
    # A filter of its own each time: an inner body that ends leaves the outer one's.
    rule = LibraryRule()
    handlers = [*logging.getLogger().handlers]
    if logging.lastResort is not None:
        handlers.append(logging.lastResort)
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for handler in handlers:
        handler.addFilter(rule)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for handler in handlers:
            handler.removeFilter(rule)


class LibraryRule(logging.Filter):
    """Lets ours pass, and of the others errors without secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Says whether a record is shown, after what must not be is taken out."""
        if record.name.partition(".")[0] in OURS:
            return True
        if record.levelno < logging.ERROR:
            return False
        record.msg, record.args = without_secrets(record.getMessage()), None
        if record.exc_info:
            # The message of an exception may hold an address as well.
            lines = traceback.format_exception(*record.exc_info)
            record.exc_text = without_secrets("".join(lines)).rstrip("\n")
            record.exc_info = None
        return True
