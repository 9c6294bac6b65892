from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.echo.model import Finish, Params, generate, token_id, tokenize

TEXTS = st.text(alphabet="ab c\n\u00e9\U0001f600", max_size=60)


def text_of(prompt: str, params: Params) -> tuple[str, Finish | None]:
    pieces = list(generate(prompt, params))
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    return "".join(piece.text for piece in pieces), pieces[-1].finish


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


def test_a_long_word_costs_several_tokens() -> None:
    assert [len(token) for token in tokenize("x" * 40)] == [16, 16, 8]


def test_token_ids_are_stable_even_for_lone_surrogates() -> None:
    assert token_id("Hello") == 4578
    assert 0 <= token_id("\ud800") < 50_000


def test_without_a_length_the_prompt_is_said_once() -> None:
    assert text_of("  Once upon a time\n", Params()) == ("Once upon a time", Finish.END)


def test_with_a_length_the_words_go_round() -> None:
    assert text_of("a b c", Params(max_tokens=5)) == ("a b c a b", Finish.LENGTH)


def test_rotation_begins_at_another_word() -> None:
    assert text_of("a b c", Params(max_tokens=4, rotate=1)) == ("b c a b", Finish.LENGTH)


@pytest.mark.parametrize("prompt", ["", "   "])
def test_silence_is_answered(prompt: str) -> None:
    assert text_of(prompt, Params()) == ("echo", Finish.END)


@pytest.mark.parametrize(
    ("stops", "include", "text"),
    [
        (("time",), False, "Once upon a "),
        (("time",), True, "Once upon a time"),
        (("n a t",), False, "Once upo"),  # over three tokens
        (("n a t",), True, "Once upon a t"),
        (("upon", "Once"), False, ""),
    ],
)
def test_stop_sequences_end_the_text(stops: tuple[str, ...], include: bool, text: str) -> None:
    assert text_of("Once upon a time", Params(stops=stops, include_stop=include)) == (text, Finish.STOP)


def test_a_beginning_that_was_no_stop_sequence_is_shown_after_all() -> None:
    pieces = list(generate("a b c d", Params(stops=("b x",))))
    assert [piece.text for piece in pieces] == ["a", " ", "b c", " d"]
    assert pieces[-1].finish is Finish.END


@given(TEXTS, st.integers(1, 30), st.lists(st.text("ab c", min_size=1, max_size=4), max_size=3))
def test_a_stopped_text_is_a_beginning_without_any_stop_sequence(
    prompt: str, most: int, stops: list[str]
) -> None:
    whole, _ = text_of(prompt, Params(max_tokens=most))
    text, finish = text_of(prompt, Params(max_tokens=most, stops=tuple(stops)))
    assert whole.startswith(text)
    assert not any(stop in text for stop in stops)
    if finish is Finish.STOP:
        assert any(whole[len(text) :].startswith(stop) for stop in stops)
    else:
        assert text == whole


@given(TEXTS, st.integers(1, 30), st.lists(st.text("ab c", min_size=1, max_size=4), max_size=3))
def test_with_the_stop_sequence_included_tokens_joined_are_the_text(
    prompt: str, most: int, stops: list[str]
) -> None:
    pieces = list(generate(prompt, Params(most, tuple(stops), include_stop=True)))
    assert "".join(piece.token for piece in pieces) == "".join(piece.text for piece in pieces)
