"""What the local commands print: whole, inside its width, and unable to steer a terminal."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from rbee_hive.local import progress_text
from rbee_shared import hive_views as views
from rbee_shared.contracts.hives import MemoryBack, WorkerFarewell
from rbee_shared.contracts.models import FileCheck, ModelRow, Removal, Verification
from rbee_shared.contracts.nodes import CpuDevice, Devices, GpuDevice
from rbee_shared.contracts.progress import ProgressEvent
from rbee_shared.contracts.provisions import BuildRow, ProvisionEnd
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.tables import facts, framed

GB = 1_000_000_000
WORDS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
PLAIN = st.text(alphabet=string.ascii_letters + string.digits, min_size=1, max_size=60)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=5), st.integers(min_value=30, max_value=300))
def test_no_line_is_wider_than_the_terminal_and_none_steers_it(rows: list[tuple[str, str, str]], width: int) -> None:
    printed = framed("Title", ("ID", "Name", "Status"), rows, "Total: n", width=width)

    assert max(map(cell_len, printed.splitlines())) <= width
    assert not set(printed) & {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2028"} - {"\n"}


@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=5), st.integers(min_value=30, max_value=120))
def test_what_is_folded_is_still_all_there(rows: list[tuple[str, str]], width: int) -> None:
    body = framed("", ("", ""), rows, "", width=width)

    printed = sum(body.count(letter) for letter in string.ascii_letters + string.digits)
    assert printed == sum(len(cell) for row in rows for cell in row)


def test_a_wide_table_widens_its_frame() -> None:
    printed = framed("T", ("A",), [("x" * 100,)], "Total", width=10_000).splitlines()

    assert printed == ["T", "=" * 100, "A", "-" * 100, "x" * 100, "=" * 100, "Total"]


def test_a_cell_of_dashes_is_no_frame() -> None:
    printed = framed("T", ("A",), [("-",), ("---",)], "Total", width=80).splitlines()

    assert printed[3:6] == ["-" * 80, "-", "---"]


def test_names_without_a_value_are_left_out() -> None:
    assert facts([("id", "x"), ("aliases", ""), ("quant", None), ("n", 0)], width=80) == "id  x\nn   0"


def test_markup_is_text() -> None:
    assert facts([("name", "[bold]x[/bold] :smile: [link=http://x]y[/link]")], width=200).startswith(
        "name  [bold]x[/bold] :smile:"
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"done": 268 * 10**6, "total": 669 * 10**6, "unit": "bytes", "per_s": 45e6, "eta_s": 8.9},
         "downloading 40 % (268 MB / 669 MB, 45 MB/s, 8.9 s left)"),
        ({"done": 5, "total": 0, "unit": "bytes"}, "downloading (5 B)"),
        ({"done": 5, "total": -7, "unit": "bytes"}, "downloading (5 B)"),
        ({"done": 9, "total": 3, "unit": "x", "per_s": 0.0, "eta_s": -1.0}, "downloading 100 % (9 x / 3 x)"),
        ({"done": -1, "total": 3, "unit": "steps"}, "downloading 0 % (-1 steps / 3 steps)"),
        ({"done": 1, "total": 2, "unit": "\x1b[2J\n"}, "downloading 50 % (1 [2J  / 2 [2J)"),
    ],
)  # fmt: skip
def test_progress_in_words(event: dict[str, object], line: str) -> None:
    assert progress_text.line(ProgressEvent.model_validate({"stage": "download", **event})) == line


@given(st.integers(), st.integers(), st.text(max_size=10), st.none() | st.floats(), st.none() | st.floats())
def test_progress_never_fails(done: int, total: int, unit: str, per_s: float | None, eta_s: float | None) -> None:
    event = ProgressEvent(stage="load", done=done, total=total, unit=unit, per_s=per_s, eta_s=eta_s)

    assert progress_text.line(event).isprintable() or not unit.isprintable()
    assert 0 <= progress_text.percent(event) <= 100


def gpu(index: int) -> GpuDevice:
    return GpuDevice(
        id=f"gpu{index}", backend="cuda", index=index, name="NVIDIA H100 80GB HBM3", vram_bytes=85 * GB,
        free_bytes=84 * GB, vram_gb=85.0, utilisation_pct=0.0, temperature_c=41.2,
    )  # fmt: skip


def test_a_big_machine_is_shown() -> None:
    cpu = CpuDevice(name="AMD EPYC 9654", cores=128, ram_bytes=512 * GB, free_bytes=500 * GB, ram_gb=512.0)
    found = Devices(cpu=cpu, gpus=tuple(map(gpu, range(8))), models=0, workers=0, problems=("gpu9: lost",))

    lines = views.devices(found, "blep", 200).splitlines()

    assert re.split(" {2,}", lines[4]) == ["gpu0", "cuda", "NVIDIA H100 80GB HBM3", "85 GB", "84 GB", "0 %", "41 °C"]
    assert [line.split()[0] for line in lines[4:13]] == [*(f"gpu{n}" for n in range(8)), "cpu"]
    assert "AMD EPYC 9654 (128 cores)" in lines[12]
    assert lines[-2:] == ["Total devices: 9", "problem: gpu9: lost"]


def test_an_unknown_load_is_no_zero() -> None:
    cpu = CpuDevice(name="c", cores=1, ram_bytes=GB, free_bytes=GB, ram_gb=1.0, offered=False)

    row = views.devices(Devices(cpu=cpu, models=0, workers=0), "n", 200).splitlines()[4]

    assert row.split() == ["cpu", "cpu", "c", "(1", "cores),", "not", "offered", "1.0", "GB", "1.0", "GB", "-", "-"]


def worker(state: WorkerState, **more: object) -> WorkerRecord:
    facts = {
        "id": f"worker-{state}",
        "url": "http://127.0.0.1:8001",
        "model_ref": "m",
        "backend": "cpu",
        "device": "cpu",
    }
    times = {"pid": 7, "started_at": 1.0, "last_activity": 1.0, "api_key": "never-shown"}
    return WorkerRecord.model_validate({**facts, **times, "state": state, **more})


def test_workers_that_stopped_are_not_active_and_those_that_failed_say_why() -> None:
    failed = worker(WorkerState.FAILED, url=None, pid=None, error={"code": "WORKER_CRASHED", "message": "m"})

    printed = views.workers([worker(WorkerState.IDLE), worker(WorkerState.STOPPED), failed], 200)

    rows = [line.split() for line in printed.splitlines()]
    assert ["worker-idle", "cpu", "m", "8001", "7", "idle"] in rows
    assert ["worker-failed", "cpu", "m", "-", "-", "failed:", "WORKER_CRASHED"] in rows
    assert "Total workers: 2" in printed
    assert "worker-stopped" not in printed
    assert "never-shown" not in printed


def test_a_workers_url_may_be_anything() -> None:
    for url in ("", "http://x", "http://x:99999", "http://[::1", "\x1b[2J"):
        assert "\x1b" not in views.workers([worker(WorkerState.IDLE, url=url)], 80)


def test_farewells() -> None:
    back = MemoryBack(released=True, worker_bytes=82_000_000)
    gone = WorkerFarewell(worker_id="w", state=WorkerState.STOPPED, memory=back)
    held = WorkerFarewell(worker_id="v", state=WorkerState.STOPPED, memory=MemoryBack(released=False))

    assert views.farewells([gone, held]) == "worker w is stopped, 82 MB came free\nworker v is stopped"
    assert views.farewells([]) == "no workers to stop"


def test_what_was_provided() -> None:
    row = ModelRow(id="m", provider="file", reference="/m.gguf", local_path="/m.gguf", size_bytes=5)
    build = BuildRow(
        id="cpu-1", kind="cpu", version="1", python="cp311", platform="p", made_at_unix=1, source="environment"
    )

    assert views.provided(ProvisionEnd(model=row, bytes_fetched=5)) == "m is here (5 B, 5 B fetched): /m.gguf"
    assert views.provided(ProvisionEnd(build=build)) == "cpu-1 is here (the hive's own environment)"
    assert views.provided(ProvisionEnd()) == "done"
    assert "cpu-1  cpu   1" in views.builds([build], "n", 200)


def test_verifications_and_removals() -> None:
    good, bad = FileCheck(path="/a", ok=True), FileCheck(path="/b", ok=False, problem="gone")

    assert views.verification(Verification(id="m", ok=True, files=(good,))) == "ok  /a\nm is what it was"
    assert views.verification(Verification(id="m", ok=False, files=(good, bad))).splitlines()[1:] == [
        "FAILED  /b: gone",
        "m is not what it was",
    ]
    assert views.removal(Removal(id="m")) == "m is no longer in the catalog"
    assert (
        views.removal(Removal(id="m", files_removed=("/a",), freed_bytes=5)) == "removed /a\nm is gone, 5 B came free"
    )
