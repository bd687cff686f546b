"""The command lines of the four programs as the seed documents write them.

`llorch`, `rbees` and `rbees-pool` (seed 002) are names of programs that were given up.
"""

import signal
from collections.abc import Generator

import httpx2
import pytest
from tests.support.cluster import Cluster, wait_until
from tests.support.seed_lab import SeedLab, free_port, seed_lab, start_line
from tests.support.worker import STORYTELLER

INFER_001 = """rbee-keeper infer --node mac --model hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF \\
  --prompt "write a short story" --max-tokens 20 --temperature 0.7"""
INFER_003 = """rbee infer \\
  --node localhost \\
  --model "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF" \\
  --prompt "hello world" \\
  --max-tokens 10"""
# the program was called rbees-workerd then
WORKER_002 = """llm-worker-rbee \\
  --worker-id worker-1 \\
  --model .test-models/qwen-0.5b \\
  --port 8001 \\
  --callback-url http://pool-manager:9200/callback"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Generator[SeedLab]:
    with seed_lab(tmp_path_factory.mktemp("commands") / "home") as lab:
        yield lab


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        # 001, 003 (two), 004
        (INFER_001, 1, "NODE_NOT_FOUND"),
        ('rbee-keeper infer --node mac --model tinyllama --prompt "hello"', 1, "NODE_NOT_FOUND"),
        (INFER_003, 3, "DOWNLOAD_FAILED"),
        ('rbee-keeper infer --model HF:author/minillama "hello"', 3, "DOWNLOAD_FAILED"),
        # the same with a model that is here
        (INFER_003.replace("TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "tinyllama"), 0, ""),
        ('rbee-keeper infer --model tinyllama "hello"', 0, ""),
    ],
)
def test_keeper_s_command_lines(lab: SeedLab, line: str, status: int, code: str) -> None:
    keeper = start_line(lab.cluster, line)

    assert keeper.wait() == status, keeper.stderr
    assert code in keeper.stderr
    assert bool(keeper.stdout) == (status == 0)


def test_daemons_command_lines_and_shutdowns(cluster: Cluster) -> None:
    """Seed 004: `queen-rbee --port`, `rbee-hive --port`, `/shutdown`; seed 003: `/v1/shutdown`."""
    for path in ("/shutdown?cascade=true", "/v1/shutdown"):
        ports = [free_port(), free_port()]
        daemons = [
            start_line(cluster, f"queen-rbee --port {ports[0]}"),
            start_line(cluster, f"rbee-hive --port {ports[1]}"),
        ]
        for daemon, port in zip(daemons, ports, strict=True):
            url = f"http://localhost:{port}"
            wait_until(lambda url=url: health(url) == "healthy", 30, f"{url} is up")
            refused = httpx2.post(f"{url}{path}", trust_env=False)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "MISSING_API_KEY")
            headers = {"Authorization": f"Bearer {cluster.token}"}
            taken = httpx2.post(f"{url}{path}", headers=headers, trust_env=False)
            assert (taken.status_code, taken.json()) == (202, {"status": "shutting_down"})
            assert daemon.wait() == 0


def test_ctrl_c_ends_an_operator_s_hive_and_the_model_catalog_stays(cluster: Cluster) -> None:
    """Seed 003: `rbee-hive daemon`, Ctrl+C, `ls ~/.rbee/` shows models.db."""
    hive = start_line(cluster, f"rbee-hive daemon --port {free_port()}")
    cluster.run_file("rbee-hive")
    hive.process.send_signal(signal.SIGINT)

    assert hive.wait() == 0
    assert (cluster.home / "models.db").exists()


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        # 001: DESIGN §3, the key comes by pipe
        (
            "llm-worker-rbee --model /models/tinyllama-q4.gguf --backend metal --device 0 --port 8001 --api-key x",
            2,
            "No such option",
        ),
        ("llm-worker-rbee --model /models/tinyllama-q4.gguf --backend metal --device 0 --port 8001", 1, "its hive"),
        # 004
        (
            "llm-worker-rbee --model-path /path/to/model --device gpu1 --port 8601 --hive-url http://localhost:8600",
            1,
            "its hive",
        ),
        # 002, under its present name
        (WORKER_002, 1, "its hive"),
        # by hand, with what this machine does not have
        (f"llm-worker-rbee --model {STORYTELLER} --backend metal --device 0 --port 0 --local-mode", 1, "no metal"),
        (f"llm-worker-rbee --model {STORYTELLER} --device gpu1 --port 0 --local-mode", 1, "no device gpu1"),
        ("llm-worker-rbee --model /models/tinyllama-q4.gguf --port 0 --local-mode", 1, "/models/tinyllama-q4.gguf"),
    ],
)
def test_workers_command_lines(cluster: Cluster, line: str, status: int, says: str) -> None:
    worker = start_line(cluster, line)

    assert worker.wait() == status, worker.stderr
    assert says in worker.stderr
    assert "Traceback" not in worker.stderr


def health(url: str) -> str:
    try:
        return str(httpx2.get(f"{url}/health", trust_env=False).json()["status"])
    except httpx2.HTTPError:
        return "unreachable"
