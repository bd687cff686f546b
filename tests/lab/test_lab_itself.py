"""The lab keeps its own promises: what a host sees, who gets in, and that a leak check can see a leak."""

import hashlib
import signal
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
from tests.support.cluster import wait_until
from tests.support.lab import Host, Lab, running_lab
from tests.support.lab_disk import ROOT

_FETCH = "import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1], timeout=20).read())"


def ssh(source: Host, target: str, command: str, *options: str) -> tuple[int, str, str]:
    """With OpenSSH's own client, which asks nothing."""
    quiet = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=3", *options)
    done = source.run(["ssh", *quiet, target, command], check=False)
    return done.status, done.stdout, done.stderr


# who gets in


@pytest.mark.parametrize("user", ["root", "rita"])
def test_whoever_is_authorised_logs_in_by_name_and_by_address(lab: Lab, user: str) -> None:
    lab.introduce(lab.blep, lab.mac, user=user)
    for name in ("mac", lab.mac.address):
        status, out, err = ssh(lab.blep, f"{user}@{name}", "id -un; hostname; pwd")
        assert (status, out.split()) == (0, [user, "mac", "/root" if user == "root" else "/home/rita"]), err


def test_nobody_gets_in_who_is_not_authorised_there(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac, user="rita")
    for user, target in (("root", lab.mac), ("rita", lab.workstation), ("root", lab.workstation)):
        lab.blep.know(target)
        status, _, err = ssh(lab.blep, f"{user}@{target.name}", "true")
        assert (status, "Permission denied (publickey)" in err) == (255, True), err


def test_a_user_of_a_host_has_a_key_of_her_own(lab: Lab) -> None:
    lab.authorise(lab.workstation, lab.mac, user="rita", by="rita")
    lab.workstation.know(lab.mac, "rita")
    command = ["ssh", "-o", "BatchMode=yes", "mac", "whoami"]
    assert lab.workstation.run(command, user="rita").stdout == "rita\n"
    assert lab.workstation.run(command, check=False).status == 255


def test_an_unknown_host_key_and_a_changed_one_are_told_apart(lab: Lab) -> None:
    lab.authorise(lab.blep, lab.mac)
    status, _, err = ssh(lab.blep, "mac", "true", "-o", "StrictHostKeyChecking=yes")
    assert (status, "No ED25519 host key is known" in err) == (255, True), err

    lab.blep.know(lab.mac)
    before = lab.mac.fingerprint
    lab.mac.change_host_key()

    status, _, err = ssh(lab.blep, "mac", "true")
    assert status == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in err
    assert lab.mac.fingerprint in err
    assert before not in err


# sshd as a test wants it


def test_sshd_takes_the_options_of_a_test_and_drops_them_again(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    forward = ("-W", f"{lab.mac.address}:22")
    lab.mac.restart_sshd(AllowTcpForwarding="no")
    refused = lab.blep.run(["ssh", *forward, "mac"], check=False, within_s=20)
    assert "administratively prohibited" in refused.stderr

    lab.mac.restart_sshd()
    allowed = lab.blep.run(["ssh", *forward, "mac"], check=False, within_s=20)
    assert allowed.stdout.startswith("SSH-2.0-OpenSSH")

    lab.mac.restart_sshd(PermitRootLogin="no")
    assert ssh(lab.blep, "mac", "true")[0] == 255

    lab.mac.restart_sshd(ForceCommand="echo forced", Banner="/etc/hostname")
    assert ssh(lab.blep, "mac", "echo asked") == (0, "forced\n", "mac\n")


def test_options_that_sshd_does_not_know_fail_at_once(lab: Lab) -> None:
    with pytest.raises(AssertionError, match="NoSuchOption"):
        lab.mac.restart_sshd(NoSuchOption="yes")


@pytest.mark.parametrize(
    ("shell", "command", "expected"),
    [
        pytest.param("/usr/bin/fish", "echo $status $FISH_VERSION", "0 3", id="fish"),
        pytest.param("/usr/bin/csh", "echo $shell", "csh", id="csh"),
        pytest.param("/usr/sbin/nologin", "echo hello", "not available", id="nologin"),
    ],
)
def test_a_user_has_the_login_shell_of_a_test(lab: Lab, shell: str, command: str, expected: str) -> None:
    lab.introduce(lab.blep, lab.mac, user="rita")
    lab.mac.set_shell("rita", shell)
    assert expected in ssh(lab.blep, "rita@mac", command)[1]


def test_what_a_shell_says_at_login_comes_before_the_answer(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac, user="rita")
    lab.mac.write("/home/rita/.bashrc", "echo welcome; echo loud >&2\n", user="rita")
    assert ssh(lab.blep, "rita@mac", "echo answer") == (0, "welcome\nanswer\n", "loud\n")


def test_a_stopped_sshd_lets_nobody_in_and_leaves_who_is_in(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    session = lab.blep.popen(["ssh", "mac", "echo in; cat"], stdin=-1)
    session.wait_for("in")

    lab.mac.stop_sshd()

    assert "Connection refused" in ssh(lab.blep, "mac", "true")[2]
    assert session.process.stdin is not None
    session.process.stdin.write(b"still here\n")
    session.process.stdin.close()
    assert session.wait() == 0
    assert session.stdout == "in\nstill here\n"
    lab.mac.start_sshd()
    assert ssh(lab.blep, "mac", "true")[0] == 0


# what a host sees


def test_only_blep_sees_the_checkout_and_its_programs(lab: Lab) -> None:
    ours = [str(ROOT), sys.prefix, sys.base_prefix if not sys.base_prefix.startswith("/usr") else sys.prefix]
    for path in ours:
        assert lab.blep.run(["test", "-d", path], check=False).status == 0
        for far in (lab.mac, lab.workstation):
            assert far.run(["test", "-e", path], check=False).status == 1
    assert lab.blep.run(["rbee-keeper", "--version"]).stdout
    assert lab.blep.run(["touch", str(ROOT / "x")], check=False).status == 1
    for far in (lab.mac, lab.workstation):
        assert far.run(["sh", "-c", "command -v rbee-keeper rbee-hive"], check=False).status == 127
        assert far.run(["find", "/", "-xdev", "-name", "queen_rbee"]).stdout == ""


def test_far_hosts_have_no_compiler(lab: Lab) -> None:
    look = ["sh", "-c", "for each in cc c++ gcc g++ clang cmake make ninja; do command -v $each; done; true"]
    for far in (lab.mac, lab.workstation):
        assert far.run(look).stdout == ""
    assert lab.blep.run(look).stdout == _machine_has("cc", "c++", "gcc", "g++", "clang", "cmake", "make", "ninja")


def _machine_has(*programs: str) -> str:
    found = [name for name in programs for folder in ("/usr/local/bin", "/usr/bin") if Path(folder, name).exists()]
    return "".join(f"{_first_of(name)}\n" for name in dict.fromkeys(found))


def _first_of(name: str) -> Path:
    return next(path for path in (Path("/usr/local/bin", name), Path("/usr/bin", name)) if path.exists())


def test_what_one_host_writes_no_other_host_and_not_the_machine_has(lab: Lab) -> None:
    paths = [
        f"{folder}/of-mac-{id(lab)}" for folder in ("/root", "/home/rita", "/tmp", "/var/tmp", "/run", "/etc", "/opt")
    ]
    for path in paths:
        lab.mac.write(path, "mine")
    lab.mac.write(f"/usr/local/bin/of-mac-{id(lab)}", "mine")
    assert set(paths) <= lab.mac.files()
    for path in (*paths, f"/usr/local/bin/of-mac-{id(lab)}"):
        assert lab.mac.path(path).read_text() == "mine"
        assert not Path(path).exists()
        assert not lab.blep.path(path).exists()
        assert not lab.workstation.path(path).exists()


def test_hosts_do_not_see_each_others_processes_or_names(lab: Lab) -> None:
    sleeper = lab.mac.popen(["sleep", "1000"])
    assert [process.pid for process in lab.mac.processes("sleep 1000")] == [sleeper.pid]
    assert lab.blep.processes("sleep 1000") == []
    assert "sleep 1000" in lab.mac.run(["ps", "ax"]).stdout
    assert "sleep 1000" not in lab.blep.run(["ps", "ax"]).stdout
    assert [host.run(["hostname"]).stdout.strip() for host in lab.hosts] == ["blep", "workstation", "mac"]


def test_a_login_finds_a_python_that_can_run_rbee_until_a_test_hides_it(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac, user="rita")
    status, out, err = ssh(lab.blep, "rita@mac", "python3 -c 'import sys, venv; print(sys.version_info >= (3, 11))'")
    assert (status, out) == (0, "True\n"), err

    lab.mac.hide("python3*")

    assert ssh(lab.blep, "rita@mac", "python3 --version")[0] == 127
    assert lab.workstation.run(["python3", "--version"]).status == 0


def test_a_machine_whose_own_python_is_too_old_lends_its_hosts_the_one_that_runs_the_tests() -> None:
    with running_lab(["mac"], python=Path(sys.base_prefix).resolve()) as lab:
        command = ["python3", "-c", "import sys, ssl, venv; print(sys.prefix)"]
        assert lab.mac.run(command, user="rita").stdout == f"{Path(sys.base_prefix).resolve()}\n"


# the Hub


def test_far_hosts_download_from_the_hub_and_the_test_sees_it(lab: Lab) -> None:
    content = hashlib.sha256(b"a model").digest() * 40_000
    lab.hub.add("TheBloke/Tiny", {"tiny.gguf": content})
    lab.introduce(lab.blep, lab.mac)

    status, out, err = ssh(
        lab.blep, "mac", f"""python3 -c '{_FETCH}' "$HF_ENDPOINT/TheBloke/Tiny/resolve/main/tiny.gguf" | sha256sum"""
    )

    assert (status, out.split()[0]) == (0, hashlib.sha256(content).hexdigest()), err
    assert lab.hub.sent_bytes() == len(content)
    assert lab.hub.requests("cdn")[0].host.startswith("cdn:")
    with pytest.raises(OSError, match=r"unreachable|refused|timed out"):
        urllib.request.urlopen(lab.hub.url, timeout=3)  # the machine itself is not on that network


# programs and what stays of them


def test_a_signal_reaches_the_program_itself_and_its_status_comes_back(lab: Lab) -> None:
    script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done"
    program = lab.mac.popen(["sh", "-c", script], user="rita")
    program.wait_for("ready")
    assert psutil.Process(program.pid).uids().effective == 1000
    program.send_signal(signal.SIGINT)
    assert (program.wait(), program.stdout) == (7, "ready\ncaught\n")

    killed = lab.mac.popen(["sleep", "1000"])
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() in {-signal.SIGKILL, 128 + signal.SIGKILL}


def test_a_run_that_fails_or_does_not_end_says_so_and_leaves_nothing(lab: Lab) -> None:
    with pytest.raises(AssertionError, match="no such thing"):
        lab.mac.run(["sh", "-c", "echo no such thing >&2; exit 3"])
    with pytest.raises(AssertionError, match="did not end within"):
        lab.mac.run(["sh", "-c", "echo begun; exec sleep 1000"], within_s=1)
    assert lab.mac.processes("sleep") == []
    assert lab.mac.run(["cat"], text="grüße\n").stdout == "grüße\n"


def test_the_leak_check_sees_a_process_a_port_and_a_file_and_then_that_they_are_gone(lab: Lab) -> None:
    lab.mac.write("/root/.rbee/models/big.gguf", "x")
    before = lab.mac.snapshot()
    lab.mac.run(["sh", "-c", "echo x >/tmp/left; ln -s /usr/bin /root/link; mkfifo /root/pipe"])
    lab.mac.popen(["python3", "-m", "http.server", "--bind", "127.0.0.1", "9200"])
    lab.mac.write("/root/.rbee/models/more.gguf", "x")
    orphan = lab.mac.popen(["sh", "-c", "(exec setsid sleep 1000) </dev/null >/dev/null 2>&1 &"])
    assert orphan.wait() == 0
    lab.mac.seen_alive("http.server", "sleep 1000")
    _until_listening(lab.mac, 9200)
    during = lab.mac.snapshot()

    assert set(during.processes) - set(before.processes) == {
        "python3 -m http.server --bind 127.0.0.1 9200",
        "sleep 1000",
    }
    assert during.ports - before.ports == {9200}
    assert during.files - before.files == {"/tmp/left", "/root/link", "/root/pipe"}
    with pytest.raises(AssertionError, match="gone from mac"):
        lab.mac.all_gone(0.2, "sleep 1000")

    for process in lab.mac.processes("http.server") + lab.mac.processes("sleep 1000"):
        process.kill()
    lab.mac.all_gone(10, "http.server", "sleep 1000")
    lab.mac.run(["rm", "/tmp/left", "/root/link", "/root/pipe"])
    assert lab.mac.snapshot() == before


def _until_listening(host: Host, port: int) -> None:
    wait_until(lambda: port in host.ports(), 20, f"{port} is listened on")


def test_a_new_host_has_nothing_of_the_one_before(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    key = lab.mac.host_key
    lab.mac.write("/root/left", "x")
    lab.mac.hide("python3*")
    lab.mac.popen(["sleep", "1000"])
    lab.cut_one_way(lab.blep, lab.mac)
    lab.cut(lab.workstation)
    lab.mac.restart_sshd(PermitRootLogin="no")
    lab.hub.add("a/b", {"c": b"d"})

    lab.renew()

    assert lab.mac.host_key != key
    assert "/root/left" not in lab.mac.files()
    assert lab.mac.processes("sleep") == []
    assert lab.hub.repos == {}
    assert ssh(lab.blep, "mac", "true")[0] == 255
    lab.introduce(lab.blep, lab.mac, lab.workstation)
    assert ssh(lab.blep, "mac", "python3 --version")[0] == 0
    assert ssh(lab.blep, "workstation", "true")[0] == 0
