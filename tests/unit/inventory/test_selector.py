"""Which devices an expression means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.inventory.selector import parse, select
from targets.records import TargetSpec

FLEET = tuple(
    TargetSpec(name=name, transport=transport, groups=groups, labels=labels)
    for name, transport, groups, labels in (
        ("pi-1", "ssh", ("boards",), {"site": "lyon", "soc": "bcm2712"}),
        ("pi-2", "ssh", ("boards", "canary"), {"site": "lyon", "soc": "bcm2711"}),
        ("pi-3", "ssh", ("boards",), {"site": "nice", "soc": "bcm2712"}),
        ("pixel", "adb", ("phones",), {"site": "lyon"}),
        ("local", "local", (), {}),
    )
)
FACTS = {"pi-1": {"arch": "aarch64"}, "pi-3": {"arch": "aarch64"}, "local": {"arch": "x86_64"}}


def meant(*expressions: str) -> list[str]:
    return [spec.name for spec in select(FLEET, expressions, FACTS)]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("site=lyon & soc=bcm2712", ["pi-1"]),
        ("site=lyon&soc=bcm27*", ["pi-1", "pi-2"]),
        ("pi-*", ["pi-1", "pi-2", "pi-3"]),
        ("phones", ["pixel"]),
        ("pi-1,pi-3", ["pi-1", "pi-3"]),
        ("pi-3 | pi-1", ["pi-1", "pi-3"]),
        ("boards & !canary", ["pi-1", "pi-3"]),
        ("!(boards | phones)", ["local"]),
        ("site!=lyon", ["pi-3", "local"]),
        ("arch=aarch64", ["pi-1", "pi-3"]),
        ("transport=adb", ["pixel"]),
        ("group=canary | name=local", ["pi-2", "local"]),
        # & binds closer than |
        ("phones | boards & site=nice", ["pi-3", "pixel"]),
        ("(phones | boards) & site=nice", ["pi-3"]),
    ],
)
def test_an_expression_means(expression: str, names: list[str]) -> None:
    assert meant(expression) == names


def test_several_expressions_add_up_and_none_means_all() -> None:
    assert meant("phones", "pi-1") == ["pi-1", "pixel"]
    assert len(meant()) == len(FLEET)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("pi-9", "no device or group is called 'pi-9'"),
        ("phoens", "did you mean 'phones'"),
        ("site=paris", "none of the 5 devices"),
        ("site=", "column 6: a value is missing"),
        ("site=lyon &", "column 12: a name, a group or key=value is missing"),
        ("(site=lyon", "column 11: a closing bracket is missing"),
        ("site=lyon soc=x", "column 11: & or | is missing"),
        ("", "column 1: a name, a group or key=value is missing"),
        ("& pi-1", "column 1: a name"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(expression: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(FLEET, [expression], FACTS)
    assert said in caught.value.message
    assert caught.value.hint


@given(st.text(alphabet="ab=!&|(), *", max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selector = parse(text)
    except UsageError:
        return
    denied = parse(f"!({text})")
    for spec in FLEET:
        assert selector.matches(spec, {}) != denied.matches(spec, {})
