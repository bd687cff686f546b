"""What rbee does to an account of a node: any user's and any shell's will do, and `uninstall` leaves nothing there."""

from tests.support.lab import Lab
from tests.support.lab_answers import document, infer, prefix_of
from tests.support.lab_cluster import PROGRAMS, keeper, rows, standing_queen, watched
from tests.support.models import storyteller

REPO, FILE = "seeds/tinyllama-GGUF", "tinyllama.Q4_K_M.gguf"
LOUD = {
    "/etc/motd": "MAINTENANCE at noon\n",
    "/etc/banner": "AUTHORISED USE ONLY\nno end of line",
    "/home/rita/.bashrc": "echo welcome; echo 'n n' >&2; printf 'no end of line'\n",
    "/home/rita/.cshrc": "echo welcome\n",
    "/home/rita/.login": "echo once\n",
    "/home/rita/.config/fish/config.fish": "echo welcome; echo loud >&2; printf 'no end of line'\n",
}


def test_a_bare_account_gets_an_environment_of_its_own_and_is_left_as_it_was(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    before = lab.mac.files("/root")
    with standing_queen(lab):
        keeper(lab.blep, "node", "add", "mac")
        keeper(lab.blep, "node", "wheelhouse", "mac", within_s=300)
        infer(lab.blep, "--node", "mac", "--max-tokens", "3", "hello", within_s=600)
        for program in ("rbee-hive", "llm-worker-rbee"):
            (process,) = lab.mac.processes(program)
            assert prefix_of(lab.mac, process).startswith("/root/.rbee/versions/"), program
        keeper(lab.blep, "node", "uninstall", "mac", "--yes")
        lab.mac.all_gone(5, *PROGRAMS)
        assert lab.mac.files("/root") == before
        assert document(lab.blep, "node", "show", "mac")["version"] is None


def test_uninstalling_can_leave_the_models_for_the_next_installation(cluster: Lab) -> None:
    cluster.hub.add(REPO, {FILE: storyteller()})
    keeper(cluster.blep, "pool", "models", "download", f"hf:{REPO}", "--id", "tinyllama", "--host", "mac")
    ((path,),) = rows(cluster.mac, "SELECT local_path FROM models WHERE id = 'tinyllama'")
    keeper(cluster.blep, "node", "uninstall", "mac", "--keep-models")
    left = cluster.mac.files("/root/.rbee")
    kept = ("/root/.rbee/models", "/root/.rbee/models.db", "/root/.rbee/config.toml")
    assert {file for file in left if not file.startswith(kept)} == set()
    assert cluster.mac.path(path).read_bytes() == storyteller()

    keeper(cluster.blep, "node", "wheelhouse", "mac", within_s=300)
    asked = len(cluster.hub.seen)
    with standing_queen(cluster):
        task = ("--node", "mac", "--model", "tinyllama", "--max-tokens", "3", "hello")
        answered = infer(cluster.blep, *task, within_s=600)
        assert answered.started["node"] == "mac"
    assert len(cluster.hub.seen) == asked, "nothing is fetched again"


def test_a_user_without_rights_will_do_in_any_shell_however_noisy(lab: Lab) -> None:
    """No root on the node: an account, sshd and Python. Each of its login shells installs, or starts, a real hive."""
    mac = lab.mac
    lab.introduce(lab.blep, mac, user="rita", by="root")
    for path, text in LOUD.items():
        mac.write(path, text, user="rita" if path.startswith("/home") else "root")
    mac.restart_sshd(Banner="/etc/banner", PrintMotd="yes")
    mac.set_shell("rita", "/usr/bin/fish")
    keeper(lab.blep, "node", "add", "mac", "--user", "rita")
    keeper(lab.blep, "node", "wheelhouse", "mac", within_s=300)
    for shell in ("/usr/bin/fish", "/bin/csh", "/bin/bash"):
        mac.set_shell("rita", shell)
        answered = watched(lab.blep, mac, "infer", "--node", "mac", "--max-tokens", "5", "hello", within_s=300)
        assert answered.stdout.strip(), shell
        assert "welcome" not in answered.stdout
        assert "starting pool manager on port 9200" in answered.stderr, shell
        mac.all_gone(20, *PROGRAMS)
    with standing_queen(lab):
        infer(lab.blep, "--node", "mac", "--max-tokens", "3", "hello")
        for program in ("rbee-hive", "llm-worker-rbee"):
            (process,) = mac.processes(program)
            assert process.uids().effective == 1000
            assert prefix_of(mac, process).startswith("/home/rita/.rbee/versions/"), program
    mac.all_gone(20, *PROGRAMS)
