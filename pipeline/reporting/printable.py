"""Text of other programs, made safe to show: a converter's last words may hold anything at all."""

import re

# Colours and cursor movements of a terminal, whole, so that no "[31m" is left of them.
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# Control characters, line separators, lone surrogates, and the marks that turn the direction of the text after them.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def printable(text: str) -> str:
    """The text as one line that moves no cursor and changes no colour."""
    return _CONTROL.sub(" ", _ESCAPE_SEQUENCE.sub("", text))
