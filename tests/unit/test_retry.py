"""The retry policy: known waits, known ends, and what urllib3 makes of it."""

from __future__ import annotations

import sys

import pytest
import urllib3

from safescale_ammt.retry import TRANSIENT, RetryPolicy


class Clock:
    """A clock that goes only when somebody waits or works."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def fail_all(self, policy: RetryPolicy, work: float = 0.0) -> list[float]:
        """Fails each try after `work` seconds; returns the waits that followed."""
        waits = []
        for wait in policy.tries(self):
            self.now += work + wait
            waits.append(wait)
        return waits


def test_waits_double_up_to_the_longest():
    policy = RetryPolicy(first=0.25, longest=8.0)
    waits = [policy.wait(failures) for failures in range(1, 9)]
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 8, 8]


def test_a_wait_after_very_many_failures_is_the_longest():
    assert RetryPolicy(first=1e-9, longest=8.0).wait(100_000) == 8.0


def test_the_last_wait_is_cut_so_that_the_waits_fill_the_total_time():
    waits = Clock().fail_all(RetryPolicy(total=20.0, first=0.5, longest=8.0))
    assert waits == [0.5, 1, 2, 4, 8, 4.5, 0]
    assert sum(waits) == 20


def test_the_total_time_runs_from_the_first_failure_not_from_the_first_try():
    clock = Clock()
    tries = RetryPolicy(total=10.0, first=1.0).tries(clock)
    assert next(tries) == 1
    clock.now += 500 + 1
    assert next(tries) == 2
    clock.now += 9
    assert next(tries) == 0


def test_time_that_the_tries_take_counts_into_the_total():
    waits = Clock().fail_all(RetryPolicy(total=10.0, first=1.0), work=3.0)
    # The tries fail 0, 4, 9 and 16 s after the first failure.
    assert waits == [1, 2, 4, 0]


@pytest.mark.parametrize("policy", [RetryPolicy(total=0), RetryPolicy(retries=0)])
def test_without_time_or_retries_there_is_one_try(policy):
    assert Clock().fail_all(policy) == [0]


def test_a_count_of_retries_ends_the_tries_before_the_time_does():
    waits = Clock().fail_all(RetryPolicy(total=1e6, first=0.5, retries=3))
    assert waits == [0.5, 1, 2, 0]


def test_only_the_time_counts_unless_retries_are_given():
    waits = Clock().fail_all(RetryPolicy(total=80_000.0))
    assert len(waits) > 10_000
    assert RetryPolicy().retries == sys.maxsize


def test_a_policy_knows_what_is_no_fault_of_the_request():
    assert {429, 500, 502, 503, 504} == TRANSIENT
    assert not TRANSIENT & {400, 401, 403, 404, 409, 412, 501, 505}


def test_urllib3_waits_as_the_policy_but_not_before_the_first_retry():
    policy = RetryPolicy(first=0.25, longest=4.0, retries=7)
    retry = urllib3.Retry(**policy.urllib3_options())
    waits = []
    for _ in range(policy.retries):
        retry = retry.increment("POST", "/", error=urllib3.exceptions.HTTPError())
        waits.append(retry.get_backoff_time())
    assert waits == [0, *(policy.wait(failures) for failures in range(2, 8))]
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        retry.increment("POST", "/", error=urllib3.exceptions.HTTPError())


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_urllib3_retries_every_verb_on_the_statuses_of_the_policy(method):
    policy = RetryPolicy(statuses=TRANSIENT | {409})
    retry = urllib3.Retry(**policy.urllib3_options())
    assert all(retry.is_retry(method, status) for status in policy.statuses)
    assert not any(retry.is_retry(method, status) for status in (200, 404, 412))
    # ... and on 503 it does not sleep for as long as the server likes.
    assert not retry.respect_retry_after_header


def test_the_limits_of_one_try_are_those_of_the_policy():
    timeout = RetryPolicy(connect=1.5, read=7.0).timeout()
    assert (timeout.connect_timeout, timeout.read_timeout) == (1.5, 7.0)
