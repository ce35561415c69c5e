"""`safescale submit --attempts N`: a run anew where the cluster broke one off.

KFP repeats a pod that was lost, twice, and never a program that failed; its launcher
waits for the artifact store for half a minute, and then the run is over. What a run had
finished by then the next one takes from KFP's cache.

An attempt has a name of its own, `name-2` after `name`, and a name stands for one run:
a caller that was killed and comes again under the first name finds each attempt as it
left it. Nothing is begun anew but what the cluster broke off for a reason that may pass
(`cluster/run_pods.py`): no refusal, no bad input, no run that somebody stopped, no
limit that a stage went over, and nothing of which nobody knows why.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.kubeflow.endings import Ending
from pipelines.kubeflow.runs import check_name


def attempt_name(name: str, number: int) -> str:
    """Returns the name of an attempt: that of the first, then with its number."""
    return name if number == 1 else f"{name}-{number}"


def check_attempts(name: str, attempts: int) -> None:
    """Checks that there is a name for every attempt; "" is drawn short enough.

    Raises:
        InputError: the last one's is too long.
    """
    if name:
        check_name(attempt_name(name, attempts))


def try_again(
    ending: Ending,
    name: str,
    attempts: int,
    start: Callable[[str], Ending],
    say: Callable[[str], None],
) -> Ending:
    """Starts a run anew, under the next name, as long as the cluster breaks it off.

    Args:
        ending: of the first attempt.
        name: of the first attempt.
        attempts: how many there may be.
        start: starts or finds the run of a name, and follows it to its end.
        say: takes a line for people.

    Returns:
        How the last attempt ended.
    """
    for number in range(2, attempts + 1):
        if not ending.lost:
            break
        following = attempt_name(name, number)
        say(ending.sentence)
        say(f"attempt {number} of {attempts}: run {following!r}")
        ending = start(following)
    return ending
