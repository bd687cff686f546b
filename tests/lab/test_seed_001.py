"""The acceptance command of the oldest promise, word for word: from `blep`, with everything off, on a bare `mac`."""

from tests.support.lab import Lab
from tests.support.lab_cluster import METAL, PROGRAMS, rows, watched
from tests.support.models import storyteller

COMMAND = [
    "infer", "--node", "mac", "--model", "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
    "--prompt", "write a short story", "--max-tokens", "20", "--temperature", "0.7",
]  # fmt: skip
REPO = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"
FILE = "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
NARRATED = ("starting pool manager on port 9200", "HTTP server ready on port 9200", "stopping 1 worker")


def test_the_acceptance_command(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    lab.mac.write("/root/.rbee/config.toml", METAL)
    lab.hub.add(REPO, {FILE: storyteller()})
    lab.blep.run(["rbee-keeper", "node", "add", "mac"], within_s=120)
    lab.blep.run(["rbee-keeper", "node", "wheelhouse", "mac"], within_s=300)
    before = lab.mac.snapshot(), lab.blep.snapshot()

    first = watched(lab.blep, lab.mac, *COMMAND, within_s=600)

    assert len(first.stdout.split()) >= 5
    assert "declared metal, computed on cpu" in first.stderr
    assert "picked GPU0 on mac" in first.stderr
    assert "downloading" in first.stderr
    at = [first.stderr.index(line) for line in NARRATED]
    assert at == sorted(at), "the far hive is heard from its first line to its last"
    (row,) = rows(lab.mac, "SELECT provider, reference, file, local_path FROM models WHERE provider = 'hf'")
    assert tuple(row[:3]) == ("hf", REPO, FILE)
    assert lab.mac.path(row[3]).read_bytes() == storyteller()
    assert not lab.blep.path("/root/.rbee/models.db").exists(), "nothing was needed of the near machine's hive"
    for host in (lab.mac, lab.blep):
        host.all_gone(20, *PROGRAMS)
    assert (lab.mac.snapshot(), lab.blep.snapshot()) == before

    asked = len(lab.hub.seen)
    second = watched(lab.blep, lab.mac, *COMMAND)
    assert len(second.stdout.split()) >= 5
    assert "downloading" not in second.stderr
    assert len(lab.hub.seen) == asked, "the second run asks nobody"
