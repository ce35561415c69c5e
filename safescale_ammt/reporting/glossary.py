"""The glossary: the field's terms in plain words, each where it first stands.

A page makes one `Glossary` and asks it about its texts in the order in which they
are read; a term that was explained before is not explained again.
"""

from __future__ import annotations

import re
from html import escape

from safescale_ammt.reporting.wording import HEADLINE_FIGURES, METRICS

TERM_WORDS = {
    "accuracy": "the share of rows that are answered right.",
    "balanced_accuracy": (
        "the share answered right in each class, averaged over the classes, so that a "
        "rare class counts as much as a frequent one."
    ),
    "auc": (
        "the chance that a row that truly is {yes} has a higher score than one that "
        "is not. 0.5 is no better than a coin."
    ),
    "precision": "of the rows predicted to be {yes}, the share that truly is.",
    "recall": "of the rows that truly are {yes}, the share that is predicted so.",
    "predicted_positive": "the share of rows predicted to be {yes}.",
    "log_loss": (
        "how surprised one is by the truth after the score, on average. 0 is best; a "
        "sure answer that is wrong costs most."
    ),
    "dp_gap": (
        "how far apart the groups are in the share of their rows that the model "
        "predicts to be {yes}: the largest share minus the smallest. 0 is equal."
    ),
    "dp_ratio": (
        "the share of rows predicted to be {yes} in the group where it is smallest, "
        "divided by the share in the group where it is largest. 1 is equal."
    ),
    "tpr_gap": (
        "of the rows that truly are {yes}, the model finds a share in each group; "
        "this is the largest share minus the smallest. 0 is equal."
    ),
    "fpr_gap": (
        "of the rows that truly are not {yes}, the model takes a share in each group "
        "for {yes} all the same; this is the largest share minus the smallest. 0 is "
        "equal."
    ),
    "eo_difference": (
        "the larger of two gaps between the groups: that in the share of rows truly "
        "{yes} that are found, and that in the share of the other rows that are taken "
        "for {yes}. 0 is equal."
    ),
    "worst_group_error": (
        "the share of rows that the model gets wrong in the group where it is wrong "
        "most often."
    ),
    "calibration_error": (
        "how far, on average, the model's score lies from the share of rows that "
        "turn out to be {yes}."
    ),
    "robust_accuracy": (
        "the share of rows that are answered right, and still right after any change "
        "that the promise permits; by groups, that of the group where it is least."
    ),
    "certified_accuracy": (
        "the share of images that are answered right, and proven to stay so under any "
        "change of their pixels that the promise permits; by groups, that of the group "
        "where it is least."
    ),
    "corruption_accuracy": (
        "the share of images that are answered right after they met a corruption, such "
        "as noise or blur, whose kind and severity are drawn by lot; by groups, that "
        "of the group where it is least."
    ),
    "attack_sanity_flags": (
        "how many checks say that an attack may be too weak to show anything. 0 is "
        "none."
    ),
    "twin": (
        "a model of the same form, trained on the same rows without the constitution. "
        "Beside it one sees what the promises cost, and what they changed."
    ),
    "constant": (
        "one and the same answer for every row. It treats all groups alike and knows "
        "nothing: a model that does not do better is of no use."
    ),
}
"""Term -> what it is, as the end of a sentence; `{yes}` is the positive class."""
_NAMES = {
    **HEADLINE_FIGURES,
    **METRICS,
    "twin": "unconstrained twin",
    "constant": "constant answer",
}
_SPELLINGS = {
    key: re.compile(rf"(?<!\w)({re.escape(name)}|{key})(?!\w)", re.IGNORECASE)
    for key, name in _NAMES.items()
}
# Both stand within longer words too, as in `unconstrained_twin`.
_SPELLINGS |= {key: re.compile(key, re.IGNORECASE) for key in ("twin", "constant")}
_RATE_WORDS = {
    "selection": "the share of a group's rows that are predicted to be {yes}",
    "tpr": "of the rows that truly are {yes}, the share that is predicted so",
    "fpr": "of the rows that truly are not {yes}, the share predicted to be {yes}",
    "precision": "of the rows predicted to be {yes}, the share that truly is",
    "error": "the share of rows whose prediction is wrong",
}


def class_words(positive: str) -> str:
    """Names the positive class in a sentence; without one, any class."""
    return f"“{positive}”" if positive else "of one class"


def rate_words(kind: str, positive: str) -> str:
    """Says what a group's rate is, in plain words.

    Args:
        kind: `selection`, `tpr`, `fpr`, `precision` or `error`.
        positive: the positive class, "" if there is none.
    """
    return _RATE_WORDS[kind].format(yes=class_words(positive))


def sentence_case(name: str) -> str:
    """Writes a name as a line begins; `AUC` keeps its capitals."""
    return name[:1].upper() + name[1:]


class Glossary:
    """Explains each term of a page once.

    Attributes:
        positive: the positive class, "" if there is none.
        told: terms that were explained.
    """

    def __init__(self, positive: str) -> None:
        self.positive = positive
        self.told: set[str] = set()

    def tell(self, term: str) -> str:
        """Returns what a term of `TERM_WORDS` is, from now on explained."""
        self.told.add(term)
        words = TERM_WORDS[term]
        sentence = words.format(yes=class_words(self.positive))
        if sentence != words and not self.positive:
            sentence += " The class where it is worst counts."
        return sentence

    def explain(self, *texts: str) -> str:
        """Returns HTML that explains the terms of the texts that are new to the page.

        Args:
            texts: plain texts that stand just before or after the explanation.
        """
        read = " ".join(texts)
        notes = []
        for key, name in _NAMES.items():
            if key not in self.told and _SPELLINGS[key].search(read):
                code = f" (<code>{key}</code>)" if key in METRICS and "_" in key else ""
                notes.append(
                    f'<p class="term"><dfn>{escape(sentence_case(name))}</dfn>{code}: '
                    f"{escape(self.tell(key))}</p>"
                )
        return "".join(notes)
