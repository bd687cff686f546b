"""Which names of `~/.ssh/config` are machines."""

from pathlib import Path

import pytest

from queen_rbee.ssh.config_names import names_a_host

CONFIG = """
Host mac workstation "quoted"
  HostName 10.0.0.3
host=equals
Host *.home.arpa !not *
Include more.conf other/*.conf /nowhere/[
Match host matched
# Host commented
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "more.conf").write_text("Host included\nInclude config more.conf\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.conf").write_bytes(b"\xff\xfe\nHost globbed\n")
    return tmp_path / "config"


@pytest.mark.parametrize("name", ["mac", "workstation", "quoted", "equals", "included", "globbed"])
def test_a_name_that_stands_there(config: Path, name: str) -> None:
    assert names_a_host(name, config)


@pytest.mark.parametrize("name", ["x.home.arpa", "*", "not", "!not", "matched", "commented", "nobody", "10.0.0.3", ""])
def test_what_is_none(config: Path, name: str) -> None:
    assert not names_a_host(name, config)


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert not names_a_host("mac", tmp_path / "config")
