"""No secret reaches a person, and no control character a terminal."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_shared.ids import new_secret
from rbee_shared.redaction import fingerprint, printable, printable_line, redact

_SECRETS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", min_size=12, max_size=60)
_AROUND = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    for character in printable(text):
        if character not in "\t\n":
            assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
            assert unicodedata.bidirectional(character) not in {
                "RLO",
                "LRO",
                "RLE",
                "LRE",
                "PDF",
                "RLI",
                "LRI",
                "FSI",
                "PDI",
            }
    assert "\n" not in printable_line(text)
    printable(text).encode()


@pytest.mark.parametrize("text", ["a b", "naïve", "蜂", "🐝", "👩‍🔬", "x\ty\nz", "עברית"])
def test_what_people_write_survives(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "shape",
    [
        "Authorization: Bearer {}",
        "authorization: bearer   {}",
        "Authorization: Basic {}",
        '{{"Authorization": "Bearer {}"}}',
        "{{'authorization': 'Bearer {}'}}",
        "[(b'authorization', b'Bearer {}')]",
        "api_key={}",
        "x-api-key: {}",
        "https://host/path?token={}&x=1",
        "password = '{}'",
        "secret:{}",
    ],
)
@given(secret=_SECRETS, before=_AROUND, after=_AROUND)
def test_a_secret_never_survives(shape: str, secret: str, before: str, after: str) -> None:
    text = f"{before} {shape.format(secret)} {after}"
    if any(secret in around for around in (before, after, shape)):
        return
    assert secret not in redact(text)


@pytest.mark.parametrize("key", ["api_key", "apiKey", "token", "hub_token", "client_secret", "password"])
@given(secret=_SECRETS)
def test_a_secret_in_json_never_survives(key: str, secret: str) -> None:
    once = json.dumps({"a": 1, key: secret, "b": [True]})
    if secret in once.replace(f'"{secret}"', ""):
        return
    for text in (once, json.dumps({"message": once}), repr(once.encode()), repr({key: secret})):
        assert secret not in redact(text)


@given(st.text("ABCDEFabcdef0123456789", min_size=8, max_size=40))
def test_hub_tokens_never_survive(rest: str) -> None:
    assert f"hf_{rest}" not in redact(f"GET https://host/x failed with hf_{rest}, giving up")


def test_the_same_secret_has_the_same_fingerprint_and_redacting_twice_changes_nothing() -> None:
    secret = new_secret()
    once = redact(f"token={secret}")
    assert once == f"token=<{fingerprint(secret)}>"
    assert redact(once) == once


@pytest.mark.parametrize(
    "text", ["first token after 12 ms", "20 tokens: 150 ms", "token ids [1, 2]", "tokens_per_s=133"]
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text
