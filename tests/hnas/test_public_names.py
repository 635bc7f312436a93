"""The names of `hnas`: completion offers them, and the examples in their docstrings run."""

from __future__ import annotations

import doctest
import inspect

import pytest

import hnas


def example(name: str) -> doctest.DocTest:
    """The example in the docstring of a public function or class, or of the class of an object."""
    value = getattr(hnas, name)
    documented = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    return doctest.DocTestFinder(recurse=False).find(documented, name)[0]


EXAMPLES = {name: example(name) for name in hnas.__all__}


def test_every_public_name_exists_and_is_offered_for_completion() -> None:
    assert {*hnas.__all__} == {name for name in dir(hnas) if not name.startswith("__")}
    assert "__version__" in dir(hnas)
    assert all(getattr(hnas, name).__doc__ for name in hnas.__all__)
    with pytest.raises(AttributeError, match="'hnas' has no attribute 'nothing'"):
        hnas.nothing  # noqa: B018


def test_functions_have_an_example_unless_it_would_need_a_store_or_a_model() -> None:
    without = {name for name, test in EXAMPLES.items() if inspect.isroutine(getattr(hnas, name)) and not test.examples}
    assert without == {"best", "load", "search_store"}


@pytest.mark.parametrize("name", [name for name, test in EXAMPLES.items() if test.examples])
def test_an_example_gives_the_output_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = doctest.DocTestRunner().run(EXAMPLES[name])
    assert result.failed == 0, capsys.readouterr().out
