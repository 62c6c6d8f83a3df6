"""How alike two short texts are, and which of many fits a query: plain counts of words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_COMMON = frozenset({
    "a", "all", "an", "and", "are", "as", "at", "be", "but", "by", "can", "does", "each", "for",
    "from", "has", "have", "if", "in", "into", "is", "it", "its", "more", "not", "of", "on", "one",
    "or", "over", "so", "than", "that", "the", "then", "there", "this", "to", "use", "was", "were",
    "when", "which", "with",
})  # fmt: skip
_WORD = re.compile(r"[a-z_]+\d*|\d+")
_ENDINGS = re.compile(r"(?<=\w{3})(?:ing|ed|es|s|e)$")

K1, B = 1.2, 0.75
"""The usual constants of BM25."""


def words(text: str) -> list[str]:
    """Words and numbers in lower case, without the commonest and without inflections."""
    found = _WORD.findall(text.lower())
    return [_ENDINGS.sub("", word) for word in found if word not in _COMMON]


def likeness(one: str, other: str) -> float:
    """Share of the words of both that they have in common (Jaccard index); 1.0 for the same."""
    first, second = set(words(one)), set(words(other))
    return len(first & second) / len(first | second) if first | second else 1.0


def relevance(query: str, texts: Sequence[str]) -> list[float]:
    """How well each text fits the query, 0 to 1 for the best of them.

    BM25 (Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009, section 3), divided
    by its largest value; all 0 where no text shares a word with the query.
    """
    bags = [Counter(words(text)) for text in texts]
    mean = sum(sum(bag.values()) for bag in bags) / max(1, len(bags)) or 1.0
    wanted = set(words(query))
    holders = {word: sum(word in bag for bag in bags) for word in wanted}
    scores = []
    for bag in bags:
        length = 1 - B + B * sum(bag.values()) / mean
        scores.append(
            sum(
                math.log(1 + (len(bags) - holders[word] + 0.5) / (holders[word] + 0.5))
                * bag[word] * (K1 + 1) / (bag[word] + K1 * length)
                for word in sorted(wanted)
                if bag[word]
            )
        )  # fmt: skip
    most = max(scores, default=0.0)
    return [score / most if most else 0.0 for score in scores]
