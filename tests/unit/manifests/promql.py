"""Which metrics a PromQL expression names.

Guarantees: every identifier that PromQL would read as a metric's name is returned and nothing else: no function,
keyword, label, unit of a duration, or word in a string or comment. What cannot be told from the text (a matcher on
`__name__`, a Grafana variable in place of a name) is refused, not skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""
      (?P<string> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*` )
    | (?P<comment> \#[^\n]* )
    | (?P<name> [a-zA-Z_:][a-zA-Z0-9_:]* )
    | (?P<number> (?: \d | \.\d ) [\w.]* )
    | (?P<variable> \$ \{? \w+ \}? )
    | (?P<space> \s+ )
    | (?P<mark> [-+*/%^=!<>~(){}\[\],@.:] )
    """,
    re.VERBOSE,
)
_OPERATORS = frozenset({"and", "or", "unless", "atan2", "offset", "bool", "inf", "nan"})
_CLOSING = {"{": "}", "[": "]", "(": ")"}
_LABEL_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})


class PromQLError(AssertionError):
    """The metrics of an expression cannot be told from its text."""


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics that an expression selects. Raises PromQLError."""
    tokens = list(_outside_of_selectors(expression))
    found = set()
    for position, (kind, text) in enumerate(tokens):
        if kind == "variable":
            raise PromQLError(f"{text} stands where a metric or a number should: {expression}")
        if kind != "name" or text.lower() in _OPERATORS | _LABEL_LISTS:
            continue
        following = [text.lower() for _, text in tokens[position + 1 : position + 3]]
        called = following[:1] == ["("] or following in (["by", "("], ["without", "("])
        if not called:
            found.add(text)
    return found


def _outside_of_selectors(expression: str) -> Iterator[tuple[str, str]]:
    """Yield the tokens but those within `{…}`, `[…]` and lists of labels, where no metric can stand."""
    closing = ""
    before = ("", "")
    for token in _tokens(expression):
        kind, text = token
        if closing:
            if token == ("name", "__name__"):
                raise PromQLError(f"selects metrics by a matcher on __name__: {expression}")
            if text == closing:
                closing = ""
        else:
            if text == "{" and before[0] != "name":
                raise PromQLError(f"selects metrics without naming them: {expression}")
            if kind == "mark" and (text in "{[" or (text == "(" and before[1].lower() in _LABEL_LISTS)):
                closing = _CLOSING[text]
            yield token
        before = token
    if closing:
        raise PromQLError(f"{closing} is missing: {expression}")


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise PromQLError(f"{expression[position]!r} at {position} is no PromQL: {expression}")
        position = match.end()
        if match.lastgroup not in ("space", "comment"):
            yield str(match.lastgroup), match.group()
