"""`node …` from command line to exit status, against a scripted queen."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_nodes import NEW_KEY, OLD_KEY
from tests.support.keeper_lab import KeeperLab
from tests.support.keeper_terminal import Terminal

ACTIONS = ["test", "drain", "resume", "install", "update", "uninstall", "wheelhouse"]


def actions(lab: KeeperLab) -> list[tuple[str, str, dict[str, Any]]]:
    return [(note["action"], note["node"], note["body"]) for note in lab.notes("action")]


def test_adding_wakes_a_queen_and_puts_her_back_to_sleep(lab: KeeperLab) -> None:
    done = lab.keeper("node", "add", "mac")

    assert done.status == 0
    assert done.out.decode().startswith("mac is in the catalog (rita@mac.home.arpa:2222, by ssh)\n")
    assert "queen: add mac: [31mred second" in done.err
    assert done.err.splitlines()[-1] == "queen: goodbye"
    assert actions(lab) == [("add", "mac", {"name": "mac"})]
    assert not lab.living()


def test_every_option_of_add_reaches_the_queen(cluster: KeeperLab) -> None:
    options = ["--host", "10.0.0.3", "--port", "2222", "--user", "rita", "--key", "k", "--transport", "http"]
    options += ["--hive-port", "9300", "--home", "~/bee", "--no-install", "--fingerprint", NEW_KEY]

    assert cluster.keeper("node", "add", "mac", *options).status == 0

    assert actions(cluster)[-1][2] == {
        "name": "mac", "host": "10.0.0.3", "port": 2222, "user": "rita", "key": str(Path("k").absolute()),
        "transport": "http", "hive_port": 9300, "home": "~/bee", "install": False, "fingerprint": NEW_KEY,
    }  # fmt: skip


def test_what_is_not_named_is_not_sent_and_an_empty_value_is_the_default(cluster: KeeperLab) -> None:
    empty = ["--host", "", "--port", "", "--user", "", "--key", "", "--hive-port", "", "--home", ""]

    assert cluster.keeper("node", "add", "mac", *empty, "--install").status == 0
    assert cluster.keeper("node", "add", "mac", "--transport", "http").status == 0

    reset = dict.fromkeys(["host", "port", "user", "key", "hive_port", "home"])
    assert [body for _, _, body in actions(cluster)[-2:]] == [
        {"name": "mac", **reset, "install": True},
        {"name": "mac", "transport": "http"},
    ]


def test_a_key_is_a_file_of_the_queens_machine(lab: KeeperLab) -> None:
    url = lab.start_queen("--cluster")

    for key in ("~/.ssh/k", "/k"):
        assert lab.keeper("node", "add", "mac", "--key", key, "--queen-url", url).status == 0
        assert actions(lab)[-1][2]["key"] == key
    relative = lab.keeper("node", "add", "mac", "--key", "k", env={"RBEE_QUEEN_URL": url})

    assert (relative.status, len(actions(lab))) == (2, 2)
    assert "k begins in a directory of this machine, and the queen is on another one" in relative.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "../etc"], "name"),
        (["add", "mac", "--port", "many"], "port"),
        (["add", "mac", "--transport", ""], "transport"),
        (["add", "mac", "--key", "~rita/k"], "key"),
        (["add", "mac", "--port", "0"], "port"),
        (["add", "mac", "--user", "a;b"], "user"),
        (["add", "mac", "--home", "relative"], "home"),
        (["add", "mac", "--transport", "carrier-pigeon"], "transport"),
        (["add", "mac", "--fingerprint", "MD5:aa"], "fingerprint"),
        (["trust", "mac", "--fingerprint", "x"], "fingerprint"),
        (["add"], "Missing argument"),
        (["remove", "a/b"], "is not the name of a node"),
        (["stop", "\x1b[2J"], "is not the name of a node"),
        (["test", "mac", "--queen-url", "ftp://x"], "is not the address of a queen"),
    ],
)
def test_wrong_usage_is_2_and_wakes_nobody(lab: KeeperLab, arguments: list[str], said: str) -> None:
    done = lab.keeper("node", *arguments)

    assert (done.status, done.out) == (2, b"")
    assert said in done.err
    assert not lab.notes("listening")


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_says_what_is_true_now(cluster: KeeperLab, action: str) -> None:
    done = cluster.keeper("node", action, "mac", *(["--yes"] if action == "uninstall" else []))

    assert done.status == 0, done.err
    assert b"mac" in done.out.splitlines()[0]
    assert b"steps    a, b" in done.out
    assert actions(cluster)[-1][:2] == (action, "mac")


def test_the_options_of_actions_reach_the_queen(cluster: KeeperLab) -> None:
    checked = cluster.keeper("node", "update", "mac", "--check", "--drain")
    cluster.keeper("node", "uninstall", "mac", "--keep-models")
    cluster.keeper("node", "start", "pc", "--no-install")
    cluster.keeper("node", "stop", "pc")
    cluster.keeper("node", "remove", "pc")

    assert actions(cluster)[-5:] == [
        ("update", "mac", {"check": True, "drain": True}),
        ("uninstall", "mac", {"keep_models": True}),
        ("start", "pc", {"install": False}),
        ("stop", "pc", {}),
        ("remove", "pc", {}),
    ]
    assert checked.out.startswith(b"what an update of mac would do\n")


def test_what_stays_running_wants_a_standing_queen(lab: KeeperLab) -> None:
    asleep = lab.keeper("node", "start", "mac")
    assert (asleep.status, asleep.out) == (3, b"")
    assert "next: Start one that stays: `rbee-keeper queen start`." in asleep.err
    assert not lab.notes("listening")

    lab.start_queen("--ephemeral")
    ephemeral = lab.keeper("node", "start", "mac")
    assert ephemeral.status == 3
    assert not actions(lab)


def test_stopping_where_the_queen_sleeps_is_done_already(lab: KeeperLab) -> None:
    done = lab.keeper("node", "stop", "mac")

    assert done.status == 0
    assert done.out == (
        b"queen is asleep: no hive and no worker of hers runs; if she was killed, hers end by themselves "
        b"within 25 s (70 s where she had adopted them)\n"
    )
    assert not lab.notes("listening")


@pytest.mark.parametrize("command", [["list"], ["show", "mac"]])
def test_reading_wakes_nobody(lab: KeeperLab, command: list[str]) -> None:
    asleep = lab.keeper("node", *command)
    assert asleep.status == 3
    assert asleep.out.startswith(b"queen is asleep")
    as_json = lab.keeper("node", *command, "--json")
    assert (as_json.status, json.loads(as_json.out)) == (3, {"queen": None})
    assert not lab.notes("listening")


def test_list_and_show(lab: KeeperLab) -> None:
    lab.start_queen("--cluster")

    listed = lab.keeper("node", "list")
    lines = listed.out.decode().splitlines()
    assert (listed.status, listed.err) == (0, "")
    assert lines[0].split() == ["NODE", "STATE", "WHERE", "BY", "VERSION", "SEEN", "DEVICES"]
    assert [line.split()[:2] for line in lines[1:4]] == [["mac", "online"], ["pc", "asleep"], ["gone", "offline"]]
    assert lines[1].endswith("gpu0, cpu")
    assert lines[4].startswith("gone: no route [31mred second (SSH_UNREACHABLE, ")
    assert lines[5] == "  next: switch it on"

    shown = lab.keeper("node", "show", "mac.home.arpa")
    assert b"device     gpu0: Apple M2, 20 GB of 24 GB free" in shown.out

    document = json.loads(lab.keeper("node", "list", "--json").out)
    assert [node["name"] for node in document["nodes"]] == ["mac", "pc", "gone"]
    assert json.loads(lab.keeper("node", "show", "gone", "--json").out)["last_error"]["code"] == "SSH_UNREACHABLE"

    unknown = lab.keeper("node", "show", "nowhere")
    assert (unknown.status, unknown.out) == (1, b"")
    assert "(NODE_NOT_FOUND)" in unknown.err


def test_json_is_one_document_and_the_narration_stays_on_stderr(cluster: KeeperLab) -> None:
    done = cluster.keeper("node", "test", "mac", "--json")

    (line,) = done.out.splitlines()
    document = json.loads(line)
    assert (document["node"]["name"], document["facts"]["steps"]) == ("mac", ["a", "b"])
    assert line.isascii()
    assert "queen: test mac" in done.err


def test_quiet_is_the_result_alone(cluster: KeeperLab) -> None:
    done = cluster.keeper("node", "drain", "mac", "--quiet")

    assert done.out.startswith(b"mac gets no new work\n")
    assert done.err == ""


@pytest.mark.parametrize(
    ("code", "status"),
    [("PYTHON_MISSING", 1), ("SSH_UNREACHABLE", 3), ("SSH_AUTH_FAILED", 4), ("DISK_FULL", 5), ("NOT_INVENTED_YET", 3)],
)
@pytest.mark.parametrize("when", ["refuses", "fails"])
def test_a_failure_is_told_with_its_next_step(cluster: KeeperLab, when: str, code: str, status: int) -> None:
    done = cluster.keeper("node", "install", f"{when}-{code}", "--json")

    assert done.status == status
    assert "next: do something else" in done.err
    assert "\x1b" not in done.err
    document = json.loads(done.out)
    assert set(document) == {"error"}
    assert document["error"]["hint"] == "do something else"


@pytest.mark.parametrize("verb", ["stop", "uninstall"])
def test_a_hive_that_was_not_stopped_is_never_said_to_be(cluster: KeeperLab, verb: str) -> None:
    yes = ["--keep-models"] if verb == "uninstall" else []
    done = cluster.keeper("node", verb, "fails-NODE_UNREACHABLE", *yes)

    assert (done.status, done.out) == (3, b"")
    assert "(NODE_UNREACHABLE)" in done.err


@pytest.mark.parametrize(
    ("how", "code"), [("truncate", "STREAM_TRUNCATED"), ("die", "QUEEN_LOST"), ("garbage", "BAD_PEER")]
)
def test_a_stream_that_breaks_off_is_no_success(lab: KeeperLab, how: str, code: str) -> None:
    lab.script_queen("--break-action", how)

    done = lab.keeper("node", "install", "mac")

    assert (done.status, done.out) == (3, b"")
    assert f"({code})" in done.err
    assert ("killed by SIGKILL" in done.err) == (how == "die")
    lab.assert_nothing_left()


def test_a_queen_that_shuts_down_is_waited_for_and_a_new_one_woken(lab: KeeperLab) -> None:
    lab.script_queen("--leave")

    done = lab.keeper("node", "test", "mac")

    assert done.status == 3
    assert "(SHUTTING_DOWN)" in done.err
    assert len(lab.notes("action")) == 3  # one queen after the other, and then no more
    lab.assert_nothing_left()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_hangs_up_and_puts_the_queen_to_sleep(lab: KeeperLab, number: signal.Signals, status: int) -> None:
    lab.script_queen("--action-s", "30")
    keeper = lab.start_keeper("node", "install", "mac")
    lab.until(lambda: lab.notes("action"))

    keeper.send_signal(number)

    assert keeper.wait(30) == status
    assert keeper.stderr is not None
    said = keeper.stderr.read()
    assert b"interrupted" in said
    assert b"Traceback" not in said
    assert lab.notes("action_hung_up")
    lab.assert_nothing_left()


def test_a_long_action_is_never_silent(lab: KeeperLab) -> None:
    lab.start_queen("--action-s", "2.5")

    done = lab.keeper("node", "uninstall", "mac", "--yes")

    assert done.status == 0
    assert "still waiting for rbee to be removed from mac" in done.err


def test_nobody_reads_the_result(lab: KeeperLab) -> None:
    lab.start_queen("--action-s", "0.5")
    keeper = lab.start_keeper("node", "test", "mac")
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    keeper.stdout.close()

    assert keeper.wait(30) == 141
    assert b"error" not in keeper.stderr.read()


def test_a_result_that_cannot_be_written_is_an_error(lab: KeeperLab) -> None:
    lab.start_queen()
    with Path("/dev/full").open("wb") as full:
        keeper = lab.start_keeper("node", "test", "mac", stdout=full)
        assert keeper.wait(30) == 5
    assert keeper.stderr is not None
    assert b"(DISK_FULL)" in keeper.stderr.read()


# models that would be lost


def test_without_a_terminal_uninstalling_wants_to_be_meant(lab: KeeperLab) -> None:
    done = lab.keeper("node", "uninstall", "mac")

    assert (done.status, done.out) == (2, b"")
    assert "mac would lose its models" in done.err
    assert "--yes; or leave them there: --keep-models" in done.err
    assert not lab.notes("listening")


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1), (b"\x03", 130)])
def test_uninstalling_is_asked_about(lab: KeeperLab, terminals: list[Terminal], answer: bytes, status: int) -> None:
    lab.start_queen("--cluster")
    terminal = Terminal(lab, "node", "uninstall", "mac")
    terminals.append(terminal)
    lab.until(lambda: "Remove rbee and all its models from mac?" in terminal.read())

    terminal.type(answer)

    assert terminal.wait() == status
    assert [action for action, _, _ in actions(lab)] == (["uninstall"] if status == 0 else [])


def test_keeping_the_models_is_not_asked_about(lab: KeeperLab) -> None:
    lab.start_queen("--cluster")
    assert lab.keeper("node", "uninstall", "mac", "--keep-models").status == 0
    assert actions(lab) == [("uninstall", "mac", {"keep_models": True})]


# host keys


def test_without_a_terminal_an_unknown_key_is_4_with_the_line_to_use(lab: KeeperLab) -> None:
    lab.script_queen("--key", "unknown")

    refused = lab.keeper("node", "add", "mac", "--host", "my mac", "--user", "rita")

    assert (refused.status, refused.out) == (4, b"")
    assert f"{NEW_KEY} (SSH_HOST_KEY_UNKNOWN)" in refused.err
    line = f"rbee-keeper node add mac --host 'my mac' --user rita --fingerprint {NEW_KEY}"
    assert f"say so: {line}\n" in refused.err
    assert len(actions(lab)) == 1

    taken = lab.keeper("node", "add", "mac", "--fingerprint", NEW_KEY)
    assert taken.status == 0


def test_a_changed_key_is_never_taken_by_add(lab: KeeperLab, terminals: list[Terminal]) -> None:
    lab.script_queen("--key", "changed")
    terminal = Terminal(lab, "node", "add", "mac")
    terminals.append(terminal)

    assert terminal.wait() == 4
    assert "(SSH_HOST_KEY_CHANGED)" in terminal.read()
    assert "rbee-keeper node trust NAME" in terminal.read()
    assert "[yes/no]" not in terminal.read()
    assert len(actions(lab)) == 1


@pytest.mark.parametrize("command", ["add", "trust"])
@pytest.mark.parametrize("answer", [b"yes\n", b"Y\n"])
def test_yes_confirms_the_key_that_was_shown(
    lab: KeeperLab, terminals: list[Terminal], command: str, answer: bytes
) -> None:
    lab.script_queen("--key", "unknown" if command == "add" else "changed")
    terminal = Terminal(lab, "node", command, "mac")
    terminals.append(terminal)
    lab.until(lambda: "[yes/no]" in terminal.read())
    shown = terminal.read()
    assert "mac.home.arpa, port 22" in shown
    assert f"{NEW_KEY} (ssh-ed25519)" in shown
    assert (OLD_KEY in shown) == (command == "trust")

    terminal.type(answer)

    assert terminal.wait() == 0
    assert [body.get("fingerprint") for _, _, body in actions(lab)] == [None, NEW_KEY]
    lab.assert_nothing_left()


@pytest.mark.parametrize("answer", [b"\n", b"no\n", b"yess\n", b"\x04", b"\xff\n"])
def test_anything_else_is_no(lab: KeeperLab, terminals: list[Terminal], answer: bytes) -> None:
    lab.script_queen("--key", "unknown")
    terminal = Terminal(lab, "node", "add", "mac")
    terminals.append(terminal)
    lab.until(lambda: "[yes/no]" in terminal.read())

    terminal.type(answer)

    assert terminal.wait() == 4
    assert "Nothing was changed" in terminal.read()
    assert len(actions(lab)) == 1
    lab.assert_nothing_left()


def test_ctrl_c_at_the_question_is_130(lab: KeeperLab, terminals: list[Terminal]) -> None:
    lab.script_queen("--key", "unknown")
    terminal = Terminal(lab, "node", "add", "mac")
    terminals.append(terminal)
    lab.until(lambda: "[yes/no]" in terminal.read())

    terminal.type(b"\x03")

    assert terminal.wait() == 130
    assert "Traceback" not in terminal.read()
    lab.assert_nothing_left()


def test_nothing_is_said_behind_a_question(lab: KeeperLab, terminals: list[Terminal]) -> None:
    lab.script_queen("--key", "unknown")
    terminal = Terminal(lab, "node", "add", "mac")
    terminals.append(terminal)
    lab.until(lambda: "[yes/no]" in terminal.read())

    lab.pause(2.5)

    assert terminal.read().endswith("[yes/no] ")
    terminal.type(b"no\n")
    assert terminal.wait() == 4


@pytest.mark.parametrize("command", ["add", "trust"])
def test_a_fingerprint_that_was_given_is_not_asked_about_again(cluster: KeeperLab, command: str) -> None:
    done = cluster.keeper("node", command, "fails-SSH_HOST_KEY_UNKNOWN", "--fingerprint", OLD_KEY)

    assert done.status == 4
    assert actions(cluster)[-1][2]["fingerprint"] == OLD_KEY


def test_a_refusal_without_a_key_is_nonsense(cluster: KeeperLab) -> None:
    done = cluster.keeper("node", "trust", "fails-SSH_HOST_KEY_CHANGED")

    assert done.status == 3
    assert "without the key's fingerprint (BAD_PEER)" in done.err
