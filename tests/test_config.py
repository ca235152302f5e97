from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ptrack.config import check_bounds, from_mapping, load_yaml, override, to_mapping
from ptrack.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 3
    rate: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "x"
    size: tuple[int, int] = (1, 2)
    inner: Inner = field(default_factory=Inner)
    path: Path | None = None
    limit: int | None = None


def test_round_trip():
    made = from_mapping(Outer, {"name": "y", "size": [3, 4], "inner": {"rate": 1}, "limit": 5})
    assert made == Outer(name="y", size=(3, 4), inner=Inner(rate=1.0), limit=5)
    assert from_mapping(Outer, to_mapping(made)) == made


def test_unknown_key_names_the_nearest():
    with pytest.raises(ConfigError, match="inner: unknown key 'dept'. Did you mean 'depth'"):
        from_mapping(Outer, {"inner": {"dept": 1}})


@pytest.mark.parametrize(("value", "words"), [("three", "type int"), (True, "type int"), (1.5, "type int")])
def test_wrong_type_is_named(value, words):
    with pytest.raises(ConfigError, match=words):
        from_mapping(Inner, {"depth": value})


def test_yaml_scientific_notation_is_a_number():
    assert from_mapping(Inner, {"rate": "1e-4"}).rate == 1e-4
    with pytest.raises(ConfigError, match="must be a number"):
        from_mapping(Inner, {"rate": "fast"})


def test_load_yaml_errors(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="top level"):
        load_yaml(tmp_path / "list.yaml")
    (tmp_path / "good.yaml").write_text("a: 1")
    assert load_yaml(tmp_path / "good.yaml") == {"a": 1}


def test_override():
    start = {"a": {"b": 1}, "c": 2}
    assert override(start, ["a.b=5", "d.e=[1, 2]", "c=x"]) == {"a": {"b": 5}, "c": "x", "d": {"e": [1, 2]}}
    assert start == {"a": {"b": 1}, "c": 2}
    with pytest.raises(ConfigError, match="key=value"):
        override(start, ["a"])
    with pytest.raises(ConfigError, match="is a value"):
        override(start, ["c.d=1"])


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "stands for more than 50000 values"),
        ("a: &a [*a]", "contains itself"),
        ("a: " + "[" * 2000, "nested too deeply"),
        ("a: " + "x" * 300_000, "the limit for YAML is 256 KiB"),
        ("a: 2001-99-99", "is not what it is marked as"),
        ("a: !!int x", "is not what it is marked as"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML: could not determine a constructor"),
        ("b: 1\na: [1", r"not valid YAML: .* in line 2\.$"),
    ],
)
def test_yaml_that_would_take_the_machine_is_one_sentence(text, words, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_yaml(tmp_path / "a.yaml")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_the_value_of_an_assignment_is_checked_too():
    with pytest.raises(ConfigError, match=r"--set lr=\[1 is not valid YAML"):
        override({}, ["lr=[1"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": [1, 2, 3]}, "size must have 2 values, not 3"),
        ({"size": 3}, "size must be of type tuple"),
        ({"inner": 3}, "inner must be of type Inner"),
        ({"inner": {"rate": 10**400}}, "rate is too large a number"),
        ({"limit": 10**5000, "name": 10**5000}, "name must be of type str, not a huge number"),
        ({"name": ["x" * 9999] * 9999}, r"name must be of type str, not .{0,60}\.$"),
        ({10**5000: 1}, "unknown key a huge number"),
        ([1], "must be 'key: value' pairs"),
    ],
)
def test_odd_values_are_sentences(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        from_mapping(Outer, values)
    assert len(str(caught.value)) < 200


@dataclass(frozen=True, kw_only=True)
class Bounded:
    share: float | None = None
    count: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_bounds(self, "share", least=0, below=1, where="here: ")
        check_bounds(self, "count", least=1)
        check_bounds(self, "weight", above=0)


@pytest.mark.parametrize("share", [-0.1, 1, math.nan, math.inf])
def test_a_field_beyond_its_bounds_is_named_with_them(share):
    assert Bounded(share=0).share == 0
    with pytest.raises(ConfigError, match=rf"^here: share must be at least 0 and below 1, not {share}\.$"):
        Bounded(share=share)
    with pytest.raises(ConfigError, match=r"^count must be at least 1, not 0\.$"):
        Bounded(count=0)


def test_where_there_is_no_upper_bound_infinity_is_allowed():
    assert Bounded(weight=math.inf).weight == math.inf
    for weight in (0.0, -math.inf, math.nan):
        with pytest.raises(ConfigError, match=rf"^weight must be above 0, not {weight}\.$"):
            Bounded(weight=weight)
