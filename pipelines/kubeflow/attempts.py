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

from collections.abc import Callable, Sequence

from pipelines.kubeflow.endings import Ending
from pipelines.kubeflow.names import check_name
from safescale_ammt.releasing.notice import UNFINISHED
from safescale_ammt.releasing.run_outcome import CRASHED


def attempt_names(name: str, attempts: int) -> list[str]:
    """Returns the name of each attempt: that of the first, then with its number."""
    return [name, *(f"{name}-{number}" for number in range(2, attempts + 1))]


def check_attempts(name: str, attempts: int) -> None:
    """Checks that there is a name for every attempt; "" is drawn short enough.

    Raises:
        InputError: the last one's is too long.
    """
    if name:
        check_name(attempt_names(name, attempts)[-1])


def try_again(
    ending: Ending,
    names: Sequence[str],
    start: Callable[[str], Ending],
    is_there: Callable[[str], bool],
    say: Callable[[str], None],
) -> Ending:
    """Starts a run anew, under the next name, as long as the cluster breaks it off.

    Args:
        ending: of the first attempt.
        names: of the attempts, the first one's first.
        start: starts or finds the run of a name, and follows it to its end.
        is_there: says whether there is a run of a name.
        say: takes a line for people.

    Returns:
        How the last attempt ended.
    """
    for number, name in enumerate(names[1:], start=2):
        # Pods are gone after a while, and with them why a run broke off. Where the next
        # attempt is there, somebody has seen it.
        broke = ending.code == 1 and ending.status in (CRASHED, UNFINISHED)
        if not ending.lost and not (broke and is_there(name)):
            break
        say(ending.sentence)
        say(f"attempt {number} of {len(names)}: run {name!r}")
        ending = start(name)
    return ending
