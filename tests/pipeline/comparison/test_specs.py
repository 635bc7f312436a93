"""Methods and budgets as given on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas.errors import UsageError
from hnas.pipeline.comparison.specs import MethodSpec, parse_spec, parse_specs


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("random", MethodSpec("random")),
        (" hnas:trace@20 ", MethodSpec("hnas", "trace", queries=20)),
        ("rea@12000s", MethodSpec("rea", seconds=12000.0)),
        ("rea@1.5e3S", MethodSpec("rea", seconds=1500.0)),
        ("top:-kappa", MethodSpec("top", "-kappa")),
        ("top:@kappa", MethodSpec("top", "@kappa")),
        ("top:params * @kappa@5", MethodSpec("top", "params * @kappa", queries=5)),
        ("top:(@kappa)@5s", MethodSpec("top", "(@kappa)", seconds=5.0)),
        ("top:strlen('a@b:c')", MethodSpec("top", "strlen('a@b:c')")),
        ("best-of:-kappa", MethodSpec("best-of", "-kappa")),
        ("robot:trace+kappa", MethodSpec("robot", "trace+kappa")),
    ],
)
def test_a_method_has_a_name_an_argument_and_its_own_budget(text, spec):
    assert parse_spec(text) == spec
    assert parse_spec(str(spec)) == spec


def test_commas_in_brackets_and_quotes_belong_to_an_argument():
    text = "hnas:trace,top:greatest(params, 1e6)@5,top:\"a,b\",top:if(arch = 'x,(', [1,2][1], 3) , random"
    assert [str(spec) for spec in parse_specs(text)] == [
        "hnas:trace",
        "top:greatest(params, 1e6)@5",
        'top:"a,b"',
        "top:if(arch = 'x,(', [1,2][1], 3)",
        "random",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not a method"),
        ("hnas:trace,,random", "'' is not a method"),
        ("hnas:", "'hnas:' is not a method"),
        (":trace", "':trace' is not a method"),
        ("rea@0", "a budget of 0 in 'rea@0' evaluates nothing"),
        ("rea@0s", "a budget of 0s in 'rea@0s' evaluates nothing"),
        ("rea@1e999s", "evaluates nothing"),
        ("rea@", "'' in 'rea@' is not a budget"),
        ("rea@12k", "'12k' in 'rea@12k' is not a budget"),
        ("rea@-5", "'-5' in 'rea@-5' is not a budget"),
        ("rea@2.5", "2.5 in 'rea@2.5' is not a number of queries"),
        ("top:(a", "opens a bracket and does not close it"),
        ("top:a)", "closes a bracket that was never opened"),
        ("top:'a", "opens ' and does not close it"),
        ("random,hnas:trace@5,random", "--methods has random twice"),
    ],
)
def test_an_invalid_method_gives_one_sentence(text, reason):
    with pytest.raises(UsageError) as error:
        parse_specs(text)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@given(st.text(max_size=30))
def test_any_input_is_parsed_or_rejected(text):
    try:
        specs = parse_specs(text)
    except UsageError:
        return
    assert all(parse_spec(str(spec)) == spec for spec in specs)
