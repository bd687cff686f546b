"""A hive's next steps, told to somebody who is not at its machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_shared.errors import BackendUnavailableError
from rbee_shared.hive_advice import advice_from_afar, told_from_afar


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("Make it: rbee-hive builds make cpu", "Make it: rbee-keeper pool builds make cpu --host mac"),
        (
            "Stop it first: `rbee-hive worker list` shows which one.",
            "Stop it first: `rbee-keeper pool worker list --host mac` shows which one.",
        ),
        (
            "Delete it, or forget it: rbee-hive models unregister hf:A/b.gguf.",
            "Delete it, or forget it: rbee-keeper pool models unregister hf:A/b.gguf --host mac.",
        ),
        (
            "Unpin it first: rbee-hive models unpin file:/m/a b",
            "Unpin it first: rbee-hive models unpin file:/m/a b (typed on mac)",
        ),
        ("Its log is logs/rbee-hive.log; the rbee-hive there", "Its log is logs/rbee-hive.log; the rbee-hive there"),
        ("Wait, then try again.", "Wait, then try again."),
    ],
)
def test_a_hives_advice_is_given_in_the_words_of_who_is_elsewhere(hint: str, said: str) -> None:
    assert advice_from_afar(hint, "mac") == said
    assert advice_from_afar(said, "mac") == said


def test_the_advice_quotes_a_nodes_name() -> None:
    assert advice_from_afar("Make it: rbee-hive builds make cpu", "a;b") == (
        "Make it: rbee-keeper pool builds make cpu --host 'a;b'"
    )


@given(st.text(max_size=200))
def test_any_advice_can_be_given(text: str) -> None:
    assert "rbee-hive" in text or advice_from_afar(text, "mac") == text


def test_the_error_stays_what_it_is() -> None:
    hint = "Make it: rbee-hive builds make cuda"
    error = BackendUnavailableError("there is no cuda build", hint=hint, details={"kind": "cuda"}, source="rbee-hive")

    told = told_from_afar(error, "mac")

    assert told.body() == error.body() | {"hint": "Make it: rbee-keeper pool builds make cuda --host mac"}
    assert (type(told), error.hint) == (BackendUnavailableError, hint)
