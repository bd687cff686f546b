"""Flag over environment over config.toml over default."""

from pathlib import Path

import pytest

from rbee_keeper.settings import load_settings
from rbee_shared.errors import InvalidRequestError

CONFIG = """
[keeper]
queen_url = "http://file:1"
token_file = "/from/file"
[queen]
port = 1111
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBEE_HOME", str(tmp_path))
    return tmp_path


def test_defaults(home: Path) -> None:
    settings = load_settings(environment={})

    assert (settings.queen_url, settings.queen_port, settings.token_path) == (None, 8080, home / "token")


def test_precedence(home: Path) -> None:
    (home / "config.toml").write_text(CONFIG)
    environment = {"RBEE_QUEEN_URL": "http://env:2", "RBEE_TOKEN_FILE": "/from/env", "RBEE_QUEEN_PORT": "2222"}

    in_file = load_settings(environment={})
    in_env = load_settings(environment=environment)
    flagged = load_settings(queen_url="http://flag:3", token_file=Path("/from/flag"), port=0, environment=environment)

    assert (in_file.queen_url, in_file.token_path, in_file.queen_port) == ("http://file:1", Path("/from/file"), 1111)
    assert (in_env.queen_url, in_env.token_path, in_env.queen_port) == ("http://env:2", Path("/from/env"), 2222)
    assert (flagged.queen_url, flagged.token_path, flagged.queen_port) == ("http://flag:3", Path("/from/flag"), 0)


@pytest.mark.parametrize("port", ["-1", "65536", "http", "\uff18\uff10", ""])
def test_a_port_that_is_none(port: str, home: Path) -> None:
    if not port:
        assert load_settings(environment={"RBEE_QUEEN_PORT": port}).queen_port == 8080
        return
    with pytest.raises(InvalidRequestError, match="port must be a number"):
        load_settings(environment={"RBEE_QUEEN_PORT": port})


def test_the_token_goes_only_where_it_is_needed(home: Path) -> None:
    settings = load_settings(environment={})
    assert settings.task_token(needed=True) is None

    (home / "token").touch(0o600)
    (home / "token").write_text("secret\n")

    assert settings.task_token(needed=False) is None
    assert settings.task_token(needed=True) == "secret"
    named = load_settings(token_file=home / "token", environment={})
    assert named.task_token(needed=False) == "secret"
