"""Rank 0's log, every line once, through streams that end, break or fall silent.

The kubelet stamps each line. After a break the stream is opened anew from the
second of the last line (`sinceTime` knows no fractions), and lines that were
seen are skipped: those stamped earlier than the last, and as many with the same
stamp as have been seen.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.pods import ENDED, phase_of, pods_of
from safescale_ammt.cluster.refusals import ApiRefusal, Away, Denied
from safescale_ammt.cluster.resources import PODS
from safescale_ammt.cluster.trainjob import NODE
from safescale_ammt.errors import SafescaleError

_STAMPED = re.compile(
    rb"(?P<whole>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(?P<part>\d{1,9}))?"
    rb"(?P<zone>Z|[+-]\d\d:\d\d) ?(?P<text>.*)",
    re.DOTALL,
)
_LONGEST_PAUSE = 5.0  # seconds; people watch the log


class Cursor:
    """The place in a log up to which it has been read."""

    def __init__(self) -> None:
        self._last = (0, 0)  # seconds since 1970, nanoseconds
        self._same = 0  # lines seen with that stamp
        self._skip = 0  # of them, still to come again on this stream
        self.since = ""
        """The last line's second, for `sinceTime`; "" before the first line."""

    def rewind(self) -> None:
        """A new stream begins at `since`."""
        self._skip = self._same

    def take(self, line: bytes) -> str | None:
        """Returns the text of a line that is new, None for one that was seen."""
        match = _STAMPED.fullmatch(line)
        if match is None:
            # No stamp: a message of the kubelet itself, which is not repeated.
            return line.decode(errors="replace")
        whole = datetime.fromisoformat((match["whole"] + match["zone"]).decode())
        stamp = (int(whole.timestamp()), int((match["part"] or b"0").ljust(9, b"0")))
        if stamp < self._last:
            return None
        if stamp == self._last and self._skip:
            self._skip -= 1
            return None
        self._same = self._same + 1 if stamp == self._last else 1
        self._last, self._skip = stamp, 0
        self.since = whole.isoformat()
        return match["text"].decode(errors="replace")


class Follower:
    """A thread that passes on the lines of a job's rank-0 pods as they come."""

    def __init__(self, api: Api, name: str, say: Callable[[str], None]) -> None:
        self._api = api
        self._name = name
        self._say = say
        # A daemon: a stream that is silent must not keep the step from ending.
        self._stop = threading.Event()
        self._ending = threading.Event()
        self._read: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Waits until the rest of the log is out, then ends."""
        self._ending.set()
        self._thread.join(seconds)
        self.stop()

    def stop(self) -> None:
        """Ends soon: at the next line, or at the end of a silence."""
        self._stop.set()
        self._ending.set()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                last = self._ending.is_set()
                query = pods_of(self._name, first=True)
                pods = [
                    pod
                    for pod in self._api.call("list", PODS, query=query)["items"]
                    if pod["metadata"]["uid"] not in self._read
                    and phase_of(pod) != "Pending"
                ]
                # A restarted job has a pod for each attempt: the oldest speaks first.
                for pod in sorted(
                    pods, key=lambda one: str(one["metadata"]["creationTimestamp"])
                ):
                    self._follow(pod)
                if last:
                    return
                self._ending.wait(self._api.timeouts.poll)
        except Denied as denied:
            self._say(f"{denied} Training goes on, without its log here.")
        except SafescaleError as error:
            self._say(f"The log of training ends here: {error}")

    def _follow(self, pod: dict[str, Any]) -> None:
        """Passes on one pod's lines until it has ended and all of it is out."""
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        cursor, first = Cursor(), self._api.timeouts.retry.first
        pause = first
        while not self._stop.is_set():
            # Looked at before reading: what ended before has no further lines.
            try:
                live = self._api.call("get", PODS, name)
                same = live["metadata"]["uid"] == uid
                has_ended = not same or phase_of(live) in ENDED
            except ApiRefusal as answer:
                if answer.status != 404:
                    raise
                has_ended = True
            whole, lines = self._stream(name, cursor)
            if whole and has_ended:
                self._read.add(uid)
                return
            # A silent container is read ever less often; one that speaks, at once.
            pause = first if lines else min(2 * pause, _LONGEST_PAUSE)
            self._stop.wait(pause)

    def _stream(self, pod: str, cursor: Cursor) -> tuple[bool, int]:
        """Reads one stream once.

        Returns:
            Whether it came to a good end, and how many lines were new.
        """
        query = {"container": NODE, "follow": "true", "timestamps": "true"}
        if cursor.since:
            query["sinceTime"] = cursor.since
        cursor.rewind()
        lines = 0
        try:
            for line in self._api.lines("get", PODS, pod, "log", query):
                text = cursor.take(line)
                if text is not None:
                    self._say(text)
                    lines += 1
                if self._stop.is_set():
                    return False, lines
        except Away:
            return False, lines
        except Denied:
            raise
        except ApiRefusal as answer:
            return answer.status == 404, lines  # 400: the container is starting
        return True, lines
