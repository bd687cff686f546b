"""Worker builds: what is decided about them, and what is made of tools, output and reports of all kinds."""

import json
import re
from pathlib import Path

import pytest
from engine_lock import engine_lock
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.builds.files import shipped_lock
from rbee_hive.domain.builds.build_output import Compiled, advanced, complaint, own_words, why_failed
from rbee_hive.domain.builds.build_plan import (
    Target,
    build_id,
    builtin_id,
    choose,
    compile_environment,
    is_usable,
    jobs_at_once,
    probe_environment,
    require_kind,
    room_bytes,
    step_environment,
    wheel_directory,
)
from rbee_hive.domain.builds.build_tools import Cuda, Tools, require_pip, require_tools
from rbee_hive.domain.builds.engine_lock import NEEDS, TOOLS, locked, read_lock
from rbee_hive.domain.builds.probe_report import ProbeFailure, ProbeReport, read_probe, why_refused
from rbee_shared.contracts.provisions import BuildRow
from rbee_shared.errors import BuildFailedError, InvalidRequestError

GIB = 1024**3
HERE = Target("0.3.36", "cp311", "linux-x86_64")
ALL_TOOLS = Tools("linux", pip=True, compiler=True, cuda=Cuda("/usr/bin/nvcc", True), glslc=True, vulkan_headers=True)


def _row(**changed: object) -> BuildRow:
    fields: dict[str, object] = {
        "id": "cpu-0.3.36", "kind": "cpu", "version": "0.3.36", "path": "/w/cpu-0.3.36", "backends": ("cpu",),
        "python": "cp311", "platform": "linux-x86_64", "made_at_unix": 1, "source": "compiled",
    }  # fmt: skip
    return BuildRow.model_validate(fields | changed)


BUILTIN = _row(id="cpu-builtin", path=None, source="environment", version="0.3.99")


# which build


@pytest.mark.parametrize(
    ("row", "usable"),
    [
        pytest.param(_row(), True, id="made here for this rbee"),
        pytest.param(_row(version="0.3.35"), False, id="made for an older rbee"),
        pytest.param(_row(python="cp312"), False, id="made for another Python"),
        pytest.param(_row(platform="darwin-arm64"), False, id="copied from another machine"),
        pytest.param(BUILTIN, True, id="the environment, in a version that pip found right"),
        pytest.param(BUILTIN.model_copy(update={"python": "cp312"}), False, id="the environment before an upgrade"),
    ],
)
def test_a_build_is_offered_only_where_it_runs(row: BuildRow, usable: bool) -> None:
    assert is_usable(row, HERE) is usable
    assert choose([row], "cpu", HERE) == (row if usable else None)


def test_a_build_that_somebody_made_comes_before_the_environment_in_any_order() -> None:
    cuda = _row(id="cuda-0.3.36", kind="cuda", path="/w/cuda-0.3.36")
    for rows in ([BUILTIN, _row(), cuda], [cuda, _row(), BUILTIN]):
        assert choose(rows, "cpu", HERE) == _row()
        assert choose(rows, "cuda", HERE) == cuda
        assert choose(rows, "metal", HERE) is None


@pytest.mark.parametrize("kind", ["", "CPU", "rocm", "../cpu", "cuda ", "cpu\n", "x" * 10_000])
def test_a_kind_that_nobody_knows_is_refused_and_not_repeated_at_length(kind: str) -> None:
    with pytest.raises(InvalidRequestError, match="there is no worker build") as caught:
        require_kind(kind)
    assert len(caught.value.message) < 200


def test_names_and_room() -> None:
    assert require_kind("vulkan") == "vulkan"
    assert (build_id("cuda", "0.3.36"), builtin_id("cpu")) == ("cuda-0.3.36", "cpu-builtin")
    assert wheel_directory("cuda", HERE) == "cuda-0.3.36-cp311-linux-x86_64"
    assert room_bytes("cuda", None) > room_bytes("cpu", None) >= GIB
    assert room_bytes("cpu", 10**9) >= 3 * 10**9


@pytest.mark.parametrize(
    ("kind", "cores", "memory_bytes", "jobs"),
    [
        ("cpu", 8, 64 * GIB, 8),
        ("cpu", 8, 3 * GIB, 2),
        ("cuda", 8, 12 * GIB, 4),
        ("cpu", 0.5, 64 * GIB, 1),
        ("cpu", 8, 0, 1),
    ],
)
def test_as_many_compilers_as_cores_and_memory_allow(kind: str, cores: float, memory_bytes: int, jobs: int) -> None:
    assert jobs_at_once(require_kind(kind), cores, memory_bytes) == jobs


# environments


def test_what_misleads_pip_and_what_is_secret_does_not_reach_a_build_step() -> None:
    environ = {
        "PATH": "/bin", "PYTHONPATH": "/evil", "PIP_REQUIRE_HASHES": "1", "PIP_TARGET": "/x", "PIP_NO_BINARY": ":all:",
        "RBEE_QUEEN_TOKEN": "s", "HF_TOKEN": "s", "LLAMA_CPP_LIB_PATH": "/old", "https_proxy": "http://proxy",
        "PIP_INDEX_URL": "http://mirror", "KEYBOARD": "us", "CUDAARCHS": "86", "PATHEXT": "x",
    }  # fmt: skip
    env = step_environment(environ)

    assert {name for name in environ if name in env} == {
        "PATH", "https_proxy", "PIP_INDEX_URL", "KEYBOARD", "CUDAARCHS", "PATHEXT",
    }  # fmt: skip
    assert env["PIP_NO_INPUT"] == "1"
    assert probe_environment(environ | {"LD_LIBRARY_PATH": "/cuda"}) == {"PATH": "/bin", "LD_LIBRARY_PATH": "/cuda"}


@pytest.mark.parametrize(
    "name",
    ["HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
     "OPENAI_API_KEY", "SOME_APIKEY", "DB_PASSWORD", "npm_config_token", "GOOGLE_APPLICATION_CREDENTIALS",
     "SSH_KEY", "GITHUB_PAT"],
)  # fmt: skip
def test_secrets_of_others_are_known_by_their_names(name: str) -> None:
    assert name not in step_environment({name: "s"})
    assert name not in compile_environment("cpu", {name: "s"}, jobs=1, tools="/t", cuda=None)


def test_each_kind_is_compiled_with_its_own_options_and_the_operators_come_last() -> None:
    def options(kind: str, cuda: Cuda | None = None, **environ: str) -> str:
        env = compile_environment(require_kind(kind), environ, jobs=3, tools="/t", cuda=cuda)
        assert env["PATH"].startswith("/t/bin:")
        assert env["PYTHONPATH"] == "/t"
        return env["CMAKE_ARGS"]

    assert "GGML_CUDA" not in options("cpu")
    assert options("metal").endswith("-DGGML_METAL=on")
    assert options("vulkan").endswith("-DGGML_VULKAN=on")
    assert options("cuda", Cuda("/n", True)).endswith("-DGGML_CUDA=on")
    assert options("cuda", Cuda("/n", False)).endswith("-DGGML_CUDA=on -DGGML_NATIVE=off"), "no card to ask"
    assert options("cpu", Cuda("/n", False)).count("NATIVE") == 0
    assert options("cuda", CMAKE_ARGS="-DGGML_CUDA=off").endswith("-DGGML_CUDA=off")


def test_the_operators_jobs_and_the_compiler_that_was_found_are_used() -> None:
    env = compile_environment("cuda", {}, jobs=3, tools="/t", cuda=Cuda("/opt/nvcc", True))
    assert (env["CMAKE_BUILD_PARALLEL_LEVEL"], env["CUDACXX"]) == ("3", "/opt/nvcc")
    env = compile_environment("cpu", {"CMAKE_BUILD_PARALLEL_LEVEL": "9"}, jobs=3, tools="/t", cuda=Cuda("/n", True))
    assert env["CMAKE_BUILD_PARALLEL_LEVEL"] == "9"
    assert "CUDACXX" not in env


# tools


@pytest.mark.parametrize("kind", ["cpu", "cuda", "vulkan"])
def test_with_all_tools_there_is_nothing_to_say(kind: str) -> None:
    require_tools(require_kind(kind), ALL_TOOLS)
    require_tools("metal", Tools("darwin", pip=True, compiler=True))
    require_pip(there=True)


@pytest.mark.parametrize(
    ("kind", "tools", "missing", "packages"),
    [
        ("cpu", Tools("linux", pip=True), ["C\\+\\+ compiler"], ["apt-get install g++", "dnf install gcc-c++"]),
        (
            "cuda",
            Tools("linux", pip=True),
            ["C\\+\\+ compiler", "CUDA toolkit"],
            ["apt-get install g++ && apt-get install nvidia-cuda-toolkit", "pacman -S gcc && pacman -S cuda"],
        ),
        ("cuda", Tools("linux", pip=True, compiler=True), ["CUDA toolkit"], ["nvidia-cuda-toolkit"]),
        (
            "vulkan",
            Tools("linux", pip=True, compiler=True),
            ["glslc", "headers"],
            ["libvulkan-dev glslc spirv-headers"],
        ),
        ("metal", Tools("darwin", pip=True), ["C\\+\\+ compiler"], ["xcode-select --install"]),
        ("cpu", Tools("linux", compiler=True), ["pip"], ["python -m ensurepip"]),
    ],
)
def test_all_that_is_missing_is_named_at_once_with_the_packages_that_bring_it(
    kind: str, tools: Tools, missing: list[str], packages: list[str]
) -> None:
    with pytest.raises(BuildFailedError) as caught:
        require_tools(require_kind(kind), tools)

    assert re.search(".*".join(missing), caught.value.message)
    assert len(caught.value.details["missing"]) == len(missing)
    for package in packages:
        assert caught.value.hint.count(package) == 1, "said once, also where two tools come in one package"


def test_a_kind_that_cannot_exist_there_is_told_from_a_missing_tool() -> None:
    with pytest.raises(BuildFailedError, match="macOS only"):
        require_tools("metal", ALL_TOOLS)
    with pytest.raises(BuildFailedError, match="does not exist on macOS"):
        require_tools("cuda", Tools("darwin", pip=True, compiler=True))
    with pytest.raises(BuildFailedError, match="pip"):
        require_pip(there=False)


# output


def test_progress_is_ninjas_count() -> None:
    now = advanced(Compiled(), ["-- configuring", "[1/193] Building CXX", "  [48/193] /usr/bin/g++ -c x.cpp"])
    assert now == Compiled(48, 193)
    assert now.percent == 24
    assert Compiled().percent == 0


def test_progress_never_goes_back_and_ignores_cmakes_trials() -> None:
    now = advanced(Compiled(), ["[1/2] trial", "[2/2] trial", "[1/193] x", "[2/2] late trial", "[9/5] x", "[0/0] x"])
    assert now == Compiled(1, 193)
    assert advanced(now, ["[193/193] Linking", "[5/193] again"]) == Compiled(193, 193)


@given(st.lists(st.text(max_size=60) | st.from_regex(r"\A\s*\[\d{1,7}/\d{1,7}\] x\Z"), max_size=20))
def test_any_output_gives_a_percentage_that_only_grows(lines: list[str]) -> None:
    before = Compiled()
    for line in lines:
        now = advanced(before, [line])
        assert 0 <= now.percent <= 100
        assert (now.total, now.done) >= (before.total, before.done)
        before = now
    complaint(lines)
    why_failed(lines)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "memory"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "locked"),
        ("Failed to establish a new connection: [Errno 111] Connection refused", "index cannot be reached"),
        ("ERROR: No matching distribution found for llama-cpp-python==0.3.36", "does not have"),
        ("ERROR: x-py3-none-macosx_11_0_arm64.whl is not a supported wheel on this platform.", "another"),
        ("ERROR: Wheel 'llama-cpp-python' located at /w.whl is invalid.", "damaged"),
        ("#error -- unsupported GNU version! gcc versions later than 14 are not supported!", "does not take"),
        ("    CUDA::cublas\n\n    but the target was not found.", "part of the CUDA toolkit"),
        ("No CMAKE_CUDA_COMPILER could be found.", "CUDA toolkit does not work"),
        ("No CMAKE_CXX_COMPILER could be found.", "C\\+\\+ compiler does not work"),
    ],
)  # fmt: skip
def test_the_cause_is_found_in_the_output(line: str, why: str) -> None:
    cause = why_failed(
        ["-- The CUDA compiler identification is NVIDIA 13 with host compiler GNU 12", *line.split("\n")]
    )
    assert cause is not None
    assert re.search(why, cause.why)
    assert cause.is_disk == ("disk" in why)


def test_warnings_of_a_healthy_compiler_are_no_cause() -> None:
    assert (
        why_failed(["warning: unreachable code", "warning: conversion is invalid", "-- CMAKE_CXX_COMPILER=c++"]) is None
    )


def test_what_the_compiler_said_is_repeated_and_not_what_pip_makes_of_it() -> None:
    said = ["x.cpp:3:1: error: expected ';'", "ninja: build stopped"]
    lines = [*said, "error: subprocess-exited-with-error", "", "ERROR: Failed"]
    assert own_words(lines) == said
    assert complaint(lines) == "x.cpp:3:1: error: expected ';'"
    assert complaint(["quite", "normal", ""]) == "normal"
    assert complaint([]) == complaint([" "]) == "it said nothing"
    assert own_words(["error: subprocess-exited-with-error", "x"]) == ["error: subprocess-exited-with-error", "x"]


# reports

GOOD = {
    "version": "0.3.36", "backends": ["cpu", "cuda"], "devices": {"cpu": ["EPYC"], "cuda": []}, "features": ["AVX2"],
    "missing": [], "python": "cp311", "platform": "linux-x86_64",
}  # fmt: skip


def _report(**changed: object) -> ProbeReport:
    report = read_probe([json.dumps(GOOD | changed)], "exit 0")
    assert isinstance(report, ProbeReport)
    return report


def test_the_last_line_that_is_a_report_counts_whatever_stands_around_it() -> None:
    lines = ["ggml_cuda_init: found 1 device", '{"version": 1}', "[1]", json.dumps(GOOD), "", "bye"]
    report = read_probe(lines, "exit 0")
    assert report == _report()
    assert _report().devices == {"cpu": ("EPYC",), "cuda": ()}


@pytest.mark.parametrize(
    ("lines", "how", "why"),
    [
        (['{"error": "libcuda.so.1: cannot open\\u001b[31m"}'], "exit 1", "libcuda.so.1: cannot open"),
        (["Illegal instruction"], "killed by SIGILL", "another processor"),
        ([], "killed by SIGSEGV", "SIGSEGV"),
        (["[" * 100_000], "exit 1", "exit 1"),
    ],
)
def test_without_a_report_the_end_explains(lines: list[str], how: str, why: str) -> None:
    report = read_probe(lines, how)
    assert isinstance(report, ProbeFailure)
    assert why in report.why
    assert "\x1b" not in report.why


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=300),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "error"]), _JSON))
def test_whatever_a_probe_prints_becomes_a_report_or_a_failure(record: dict[str, object]) -> None:
    report = read_probe([json.dumps(record)], "exit 0")
    if isinstance(report, ProbeReport):
        assert all(len(text) <= 200 for text in (*report.backends, *report.features, report.version))
        why_refused("cpu", report, HERE)


@pytest.mark.parametrize(
    ("kind", "changed", "why"),
    [
        ("cpu", {}, None),
        ("cuda", {}, None),
        ("cuda", {"backends": ["cpu"]}, "no cuda backend, only cpu"),
        ("cpu", {"backends": "cpu"}, "only none"),
        ("cpu", {"version": "0.3.35"}, "0.3.35"),
        ("cpu", {"python": "cp312"}, "cp312"),
        ("cpu", {"missing": ["numpy", "jinja2"]}, "numpy, jinja2"),
        ("cpu", {"devices": None}, None),
    ],
)
def test_a_build_that_is_not_what_was_wanted_is_refused(kind: str, changed: dict[str, object], why: str | None) -> None:
    refused = why_refused(require_kind(kind), _report(**changed), HERE)
    assert refused is None if why is None else refused is not None and why in refused


# the lock


def test_the_shipped_lock_is_what_the_locks_of_this_checkout_say() -> None:
    shipped = Path(__file__).parents[3] / "src" / "rbee_hive" / "builds" / "engine.lock"
    assert shipped.read_text() == engine_lock(), "run scripts/lock"


def test_every_line_that_pip_is_given_has_a_hash() -> None:
    lock = shipped_lock()
    for text in (lock.engine, lock.tools, lock.needed_beside({})):
        entries = re.findall(r"^\S+==.*(?:\n    .*)*", text, re.MULTILINE)
        assert entries
        assert all("--hash=sha256:" in entry for entry in entries)
    assert set(lock.needs) == set(NEEDS)
    assert all(f"{name}==" in lock.tools for name in TOOLS)


LOCK = """
llama-cpp-python==1.2 \\
    --hash=sha256:aa
numpy==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
numpy==2.5 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
"""


def test_an_entry_for_each_marker_is_kept_word_for_word() -> None:
    numpy = locked(LOCK, "numpy")
    assert numpy.versions == {"2.0", "2.5"}
    assert numpy.lines == LOCK[LOCK.index("numpy") :]
    with pytest.raises(ValueError, match="cmake is not locked"):
        read_lock(LOCK)


def test_only_what_the_environment_lacks_is_installed_beside_the_engine() -> None:
    lock = read_lock(LOCK + "".join(f"{name}==1.0\n" for name in (*NEEDS, *TOOLS) if name != "numpy"))
    there = {"jinja2": "1.0", "llguidance": "1.0", "markupsafe": "1.0", "numpy": "2.5"}

    assert lock.version == "1.2"
    assert lock.needed_beside(there) == ""
    assert lock.needed_beside(there | {"numpy": "2.4"}) == locked(LOCK, "numpy").lines
    assert lock.needed_beside({}).count("==") == 5
