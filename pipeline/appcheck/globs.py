"""Globs of a bundle's configuration, matched in time that any pattern keeps: pattern length × path length.

Java's glob syntax, as bundletool reads it: `*` and `?` stop at a slash, `**` does not, `[a-z]`, `[!a]`, `{a,b}`.
"""

from functools import cache

from pipeline.fit.records import Malformed

_MOST_ALTERNATIVES = 64
_LONGEST = 1000  # characters; a path in an archive and a sensible pattern are far shorter


def matches(glob: str, path: str) -> bool:
    """Whether a path fits. A pattern that no sane build writes fits nothing."""
    if max(len(glob), len(path)) > _LONGEST:
        return False
    try:
        return any(_matches(tokens, path) for tokens in _compiled(glob))
    except Malformed:
        return False


def _matches(tokens: tuple[tuple[str, str], ...], path: str) -> bool:
    # Which places of the path can be reached after each token: no backtracking.
    reached = {0}
    for kind, value in tokens:
        if kind in ("*", "**"):
            starts, reached, running = reached, set(), False
            for place in range(len(path) + 1):
                running = running or place in starts
                if running:
                    reached.add(place)
                if kind == "*" and place < len(path) and path[place] == "/":
                    running = False
        else:
            reached = {place + 1 for place in reached if place < len(path) and _fits(kind, value, path[place])}
        if not reached:
            return False
    return len(path) in reached


def _fits(kind: str, value: str, character: str) -> bool:
    if kind == "=":
        return character == value
    if kind == "?":
        return character != "/"
    return character != "/" and (character in value) == (kind == "in")


@cache
def _compiled(glob: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(tuple(_tokens(alternative)) for alternative in _alternatives(glob))


def _alternatives(glob: str) -> list[str]:
    found, done = [glob], []
    while found:
        pattern = found.pop()
        start = pattern.find("{")
        end = pattern.find("}", start)
        if start < 0 or end < 0:
            done.append(pattern)
        else:
            found += [pattern[:start] + part + pattern[end + 1 :] for part in pattern[start + 1 : end].split(",")]
        if len(found) + len(done) > _MOST_ALTERNATIVES:
            raise Malformed("too many alternatives")
    return done


def _tokens(pattern: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(pattern):
        character = pattern[at]
        if pattern.startswith("**", at):
            tokens.append(("**", ""))
            at += 2
        elif character in "*?":
            tokens.append((character, ""))
            at += 1
        elif character == "[" and (end := pattern.find("]", at + 2)) > 0:
            body = pattern[at + 1 : end]
            tokens.append(("out" if body[0] == "!" else "in", _members(body.removeprefix("!"))))
            at = end + 1
        else:
            at += 1 if character == "\\" and at + 1 < len(pattern) else 0
            tokens.append(("=", pattern[at]))
            at += 1
    return tokens


def _members(body: str) -> str:
    members, at = "", 0
    while at < len(body):
        if at + 2 < len(body) and body[at + 1] == "-":
            first, last = ord(body[at]), ord(body[at + 2])
            members += "".join(map(chr, range(first, min(last, first + 255) + 1)))
            at += 3
        else:
            members += body[at]
            at += 1
    return members
