"""Choosing devices: `site=lyon & soc=bcm2712`, `pi-* | phones`, `!(group=lab)`.

    either   one & two & …, either of them with |, not with !, brackets
    key=glob an attribute of the device: name, group, class, transport, host, a label, or a fact of its last probe
    key!=glob  the same denied; a device without the attribute counts as different
    glob     its name, or a group that it is in

A comma between whole words means |, so `pi-1,pi-2` is what one expects.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.errors import UsageError, nearest
from targets.records import TargetSpec

Facts = Mapping[str, str]  # of the device's last probe: arch, os, cpu …
_Test = Callable[[TargetSpec, Facts], bool]
_TOKEN = re.compile(r"\s*(?:(?P<sign>!=|[&|!(),=])|(?P<word>[^\s&|!(),=]+))")
_MEANING = "write such as `site=lyon & soc=bcm2712`, `pi-* | phones`, or `!(group=lab)`; quote it for the shell"


def attributes(spec: TargetSpec, facts: Facts) -> dict[str, tuple[str, ...]]:
    """Everything that a selector may ask of the device, declared before probed."""
    own = {
        "name": (spec.name,),
        "group": spec.groups,
        "class": (spec.device_class,),
        "transport": (spec.transport,),
        "host": (spec.host,),
    }
    return {**{k: (v,) for k, v in facts.items()}, **{k: (v,) for k, v in spec.labels.items()}, **own}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One expression, read."""

    text: str
    matches: _Test
    words: tuple[str, ...]  # its bare words, each a name or a group


def select(
    specs: Sequence[TargetSpec], expressions: Iterable[str], facts: Mapping[str, Facts] | None = None
) -> tuple[TargetSpec, ...]:
    """The devices that any of the expressions means, in the order of `specs`; all of them without an expression.

    Raises UsageError for an expression that cannot be read or means no device, and for a word that names none.
    """
    asked = [parse(text) for text in expressions]
    if not asked:
        return tuple(specs)
    known = [(spec, (facts or {}).get(spec.name, {})) for spec in specs]
    names = {name for spec in specs for name in (spec.name, *spec.groups)}
    chosen: set[str] = set()
    for selector in asked:
        for word in selector.words:
            if not any(fnmatchcase(name, word) for name in names):
                raise UsageError(
                    f"--target {selector.text}: no device or group is called {word!r}{nearest(word, names)}",
                    hint=f"there are: {_listed([spec.name for spec in specs])}",
                )
        found = {spec.name for spec, of in known if selector.matches(spec, of)}
        if not found:
            keys = sorted({key for spec, of in known for key in attributes(spec, of)})
            raise UsageError(
                f"--target {selector.text}: this means none of the {len(specs)} devices",
                hint=f"devices have: {', '.join(keys)}; `deploy targets list` shows their values, and after "
                "`deploy targets probe` there are arch, cpu, os, python and each runtime too",
            )
        chosen |= found
    return tuple(spec for spec in specs if spec.name in chosen)


def parse(text: str) -> Selector:
    """Read one expression; raises UsageError with the column of what is wrong."""
    reader = _Reader(text)
    test = reader.either()
    reader.end()
    return Selector(text=text, matches=test, words=tuple(reader.words))


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class _Reader:
    """Recursive descent: either → both ("|" both)*, both → one ("&" one)*, one → "!" one | "(" either ")" | test."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, int]] = []
        self._at = 0
        self.words: list[str] = []
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            assert found, "every character is a sign or part of a word"
            self._tokens.append(
                (found.group().strip(), found.start() + len(found.group()) - len(found.group().lstrip()))
            )
            place = found.end()

    def either(self) -> _Test:
        tests = [self._both()]
        while self._next() in ("|", ","):
            self._at += 1
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda spec, facts: any(test(spec, facts) for test in tests)

    def _both(self) -> _Test:
        tests = [self._one()]
        while self._next() == "&":
            self._at += 1
            tests.append(self._one())
        return tests[0] if len(tests) == 1 else lambda spec, facts: all(test(spec, facts) for test in tests)

    def _one(self) -> _Test:
        token = self._next()
        if token == "!":
            self._at += 1
            denied = self._one()
            return lambda spec, facts: not denied(spec, facts)
        if token == "(":
            self._at += 1
            inner = self.either()
            if self._next() != ")":
                raise self._fault("a closing bracket is missing")
            self._at += 1
            return inner
        word = self._word("a name, a group or key=value")
        sign = self._next()
        if sign not in ("=", "!="):
            self.words.append(word)
            return lambda spec, _: any(fnmatchcase(name, word) for name in (spec.name, *spec.groups))
        self._at += 1
        value = self._word("a value")

        def same(spec: TargetSpec, facts: Facts) -> bool:
            return any(fnmatchcase(own, value) for own in attributes(spec, facts).get(word, ()))

        return same if sign == "=" else lambda spec, facts: not same(spec, facts)

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._fault("& or | is missing")

    def _word(self, meant: str) -> str:
        token = self._next()
        if not token or token in ("&", "|", "!", "(", ")", ",", "=", "!="):
            raise self._fault(f"{meant} is missing")
        self._at += 1
        return token

    def _next(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _fault(self, what: str) -> UsageError:
        column = self._tokens[self._at][1] + 1 if self._at < len(self._tokens) else len(self._text) + 1
        return UsageError(f"--target {self._text!r}: column {column}: {what}", hint=_MEANING)
