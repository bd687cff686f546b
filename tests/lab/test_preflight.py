"""Everything that keeps a hive from starting on a node: each has its own code, its cause, and the next step."""

import pytest
from tests.support.lab import Lab
from tests.support.lab_answers import document, refusal
from tests.support.lab_cluster import keeper, standing_queen, watched


def _added(lab: Lab) -> Lab:
    lab.introduce(lab.blep, lab.mac)
    keeper(lab.blep, "node", "add", "mac")
    return lab


def test_a_machine_that_is_off_is_remembered_as_such_until_it_answers(lab: Lab) -> None:
    _added(lab).mac.power_off()
    with standing_queen(lab):
        assert refusal(lab.blep, "node", "test", "mac")["code"] == "SSH_UNREACHABLE"
        assert _last_error(lab) == "SSH_UNREACHABLE"
    with standing_queen(lab):
        assert _last_error(lab) == "SSH_UNREACHABLE", "it is kept for her next start"
        assert "offline" in keeper(lab.blep, "node", "list").stdout
        lab.mac.power_on()
        keeper(lab.blep, "node", "test", "mac")
        assert _last_error(lab) is None


def _last_error(lab: Lab) -> str | None:
    fault = document(lab.blep, "node", "show", "mac")["last_error"]
    return None if fault is None else str(fault["code"])


def test_a_machine_without_an_ssh_server(lab: Lab) -> None:
    _added(lab).mac.stop_sshd()
    assert refusal(lab.blep, "node", "test", "mac")["code"] == "SSH_UNREACHABLE"


def test_a_key_that_is_not_let_in(lab: Lab) -> None:
    lab.blep.know(lab.mac, "root")
    error = refusal(lab.blep, "node", "add", "mac")
    assert error["code"] == "SSH_AUTH_FAILED"
    assert error["details"]["keys_tried"]


def test_a_host_key_that_nobody_has_confirmed_and_one_that_is_given(lab: Lab) -> None:
    lab.authorise(lab.blep, lab.mac)
    error = refusal(lab.blep, "node", "add", "mac")
    assert (error["code"], error["details"]["fingerprint"]) == ("SSH_HOST_KEY_UNKNOWN", lab.mac.fingerprint)
    wrong = refusal(lab.blep, "node", "add", "mac", "--fingerprint", f"SHA256:{'A' * 43}")
    assert wrong["code"] == "SSH_HOST_KEY_UNKNOWN"
    keeper(lab.blep, "node", "add", "mac", "--fingerprint", lab.mac.fingerprint)
    keeper(lab.blep, "node", "test", "mac")


def test_a_changed_host_key_is_refused_until_it_is_trusted(lab: Lab) -> None:
    _added(lab).mac.change_host_key()
    error = refusal(lab.blep, "node", "test", "mac")
    assert (error["code"], error["details"]["fingerprint"]) == ("SSH_HOST_KEY_CHANGED", lab.mac.fingerprint)
    again = refusal(lab.blep, "node", "add", "mac", "--fingerprint", lab.mac.fingerprint)
    assert again["code"] == "SSH_HOST_KEY_CHANGED", "adding overrides nothing"
    keeper(lab.blep, "node", "trust", "mac", "--fingerprint", lab.mac.fingerprint)
    keeper(lab.blep, "node", "test", "mac")


def test_a_shell_that_runs_nothing(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac, user="rita", by="root")
    lab.mac.set_shell("rita", "/usr/sbin/nologin")
    error = refusal(lab.blep, "node", "add", "mac", "--user", "rita")
    assert error["code"] == "SHELL_UNUSABLE"
    assert "not available" in error["message"], "what it printed instead is shown"


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/bin/csh", "/bin/bash"])
def test_any_shell_will_do_however_noisy(lab: Lab, shell: str) -> None:
    lab.introduce(lab.blep, lab.mac, user="rita", by="root")
    lab.mac.set_shell("rita", shell)
    lab.mac.write("/home/rita/.bashrc", "echo welcome; echo 'n n' >&2; printf 'no end of line'\n", user="rita")
    lab.mac.write("/home/rita/.cshrc", "echo welcome\n", user="rita")
    lab.mac.write("/home/rita/.config/fish/config.fish", "echo welcome\n", user="rita")
    keeper(lab.blep, "node", "add", "mac", "--user", "rita")
    tested = keeper(lab.blep, "node", "test", "mac")
    assert "Python 3." in tested.stderr


def test_a_machine_without_a_python(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    lab.mac.hide("python3*")
    keeper(lab.blep, "node", "add", "mac")
    error = refusal(lab.blep, "node", "test", "mac")
    assert error["code"] == "PYTHON_MISSING"
    assert "3.11" in error["message"]


def test_a_node_that_may_not_be_installed_on(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    keeper(lab.blep, "node", "add", "mac", "--no-install")
    error = refusal(lab.blep, "infer", "--node", "mac", "hello")
    assert error["code"] == "NOT_INSTALLED"
    assert lab.mac.files("/root/.rbee") == set()


def test_a_machine_without_an_index_is_told_of_the_wheelhouse(lab: Lab) -> None:
    error = refusal(_added(lab).blep, "node", "install", "mac", within_s=400)
    assert error["code"] == "INSTALL_FAILED"
    assert "rbee-keeper node wheelhouse" in error["hint"]
    assert not lab.mac.path("/root/.rbee").exists(), "where nothing was there is nothing"


def test_a_full_disk(lab: Lab) -> None:
    _added(lab).mac.run(["mkdir", "/root/.rbee"])
    lab.mac.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", "/root/.rbee"])
    assert refusal(lab.blep, "node", "install", "mac")["code"] == "DISK_FULL"


@pytest.mark.parametrize("option", [{"AllowTcpForwarding": "no"}, {"DisableForwarding": "yes"}])
def test_forbidden_forwarding_is_said_and_http_does_without(cluster: Lab, option: dict[str, str]) -> None:
    cluster.mac.restart_sshd(**option)
    error = refusal(cluster.blep, "infer", "--node", "mac", "hello")
    assert error["code"] == "SSH_FORWARDING_FORBIDDEN"
    assert "--transport http" in error["hint"]

    keeper(cluster.blep, "node", "add", "mac", "--transport", "http")
    answered = watched(cluster.blep, cluster.mac, "infer", "--node", "mac", "--max-tokens", "5", "hello")
    assert answered.stdout.strip()
    cluster.mac.all_gone(20, "rbee-hive", "llm-worker-rbee")


def test_a_backend_that_is_not_there(cluster: Lab) -> None:
    error = refusal(cluster.blep, "infer", "--node", "mac", "--backend", "cpu", "hello")
    assert error["code"] == "BACKEND_UNAVAILABLE"
    assert "its devices are: gpu0" in error["message"]


def test_a_node_that_nobody_knows(lab: Lab) -> None:
    assert refusal(lab.blep, "infer", "--node", "nowhere", "hello")["code"] == "NODE_NOT_FOUND"
