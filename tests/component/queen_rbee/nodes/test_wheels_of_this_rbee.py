"""Wheels made of what is installed here are real wheels: pip takes them, and they are the same again."""

import base64
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from queen_rbee.nodes.here import own_rbee, this_cpu, this_platform
from queen_rbee.nodes.wheels import PACKAGES, Wheel, own_wheel, packed, repacked
from rbee_shared.errors import InstallFailedError
from rbee_shared.version import __version__

ROOT = Path(__file__).parents[4]


def unpacked(wheel: Wheel) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_package_of_the_project_is_carried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(PACKAGES) == sorted(path.removeprefix("src/") for path in named)


def test_the_own_wheel_holds_everything_that_runs_and_nothing_else() -> None:
    parts = unpacked(own_wheel())
    for name in ("rbee_shared/assets/storyteller.gguf", "queen_rbee/nodes/node.lock", "queen_rbee/nodes/far/probe.sh"):
        assert parts[name] == (ROOT / "src" / name).read_bytes()
    assert not [name for name in parts if name.endswith(".pyc") or "__pycache__" in name or "direct_url" in name]
    assert f"\nVersion: {__version__}\n" in parts[f"rbee-{__version__}.dist-info/METADATA"].decode()
    assert b"rbee-hive = rbee_hive" in parts[f"rbee-{__version__}.dist-info/entry_points.txt"]
    assert f"rbee-{__version__}.dist-info/licenses/LICENSE" in parts


@pytest.mark.parametrize("name", ["rbee", "pip", "pyyaml"])
def test_the_record_of_a_wheel_is_true(name: str) -> None:
    wheel = own_wheel() if name == "rbee" else repacked(name)
    parts = unpacked(wheel)
    (record,) = [content.decode() for path, content in parts.items() if path.endswith(".dist-info/RECORD")]
    listed = dict.fromkeys(parts, "")
    for line in record.splitlines():
        path, digest, size = line.rsplit(",", 2)
        listed.pop(path)
        if not path.endswith("/RECORD"):
            expected = base64.urlsafe_b64encode(hashlib.sha256(parts[path]).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={expected}", len(parts[path]))
    assert listed == {}


def test_the_same_content_gives_the_same_bytes_and_other_content_others() -> None:
    parts = {"a.py": b"1\n", "x-1.dist-info/METADATA": b"Name: x\n"}
    turned = dict(reversed(parts.items()))
    assert packed("x-1", ["py3-none-any"], parts) == packed("x-1", ["py3-none-any"], turned)
    assert (
        packed("x-1", ["py3-none-any"], parts).sha256
        != packed("x-1", ["py3-none-any"], {**parts, "a.py": b"2\n"}).sha256
    )


def test_an_installed_rbee_makes_the_same_wheel_as_the_sources_that_it_came_from(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w"]
    subprocess.run([*build, str(tmp_path), str(ROOT)], check=True, env={**os.environ, "TMPDIR": str(tmp_path)})
    (built,) = tmp_path.glob("rbee-*.whl")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q", "--target"]
    subprocess.run([*install, str(tmp_path / "site"), str(built)], check=True)
    ask = (
        "import sys; sys.path.insert(0, sys.argv[1]); from queen_rbee.nodes.wheels import own_wheel as w, __file__ as f"
    )
    ask += "; assert f.startswith(sys.argv[1]), f; print(w().sha256)"
    command = [sys.executable, "-I", "-c", ask, str(tmp_path / "site")]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == own_wheel().sha256


def test_pip_installs_a_repacked_wheel_with_its_scripts(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    pip = repacked("pip")
    (tmp_path / pip.name).write_bytes(pip.content)
    python = tmp_path / "venv" / "bin" / "python"
    command = [
        str(python),
        f"{tmp_path / pip.name}/pip",
        "install",
        "--no-index",
        "--no-deps",
        "-q",
        str(tmp_path / pip.name),
    ]
    subprocess.run(command, check=True)
    said = subprocess.run([tmp_path / "venv" / "bin" / "pip", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.split()[1] == importlib.metadata.version("pip")


def test_a_compiled_distribution_keeps_its_tags_and_its_libraries() -> None:
    wheel = repacked("pyyaml")
    assert wheel.name.startswith(f"pyyaml-{importlib.metadata.version('pyyaml')}-")
    assert any(name.endswith((".so", ".dylib")) for name in unpacked(wheel))


def fake_distribution(site: Path, record: dict[str, bytes], **beside: bytes) -> None:
    info = site / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    metadata = {"METADATA": b"Name: odd\nVersion: 1.0\n", "WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n"}
    for name, content in {**metadata, **beside}.items():
        (info / name).write_bytes(content)
    for name, content in record.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    listed = [*record, *(f"{info.name}/{name}" for name in (*metadata, *beside, "RECORD"))]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in listed))


def test_scripts_and_data_outside_the_packages_go_where_a_wheel_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    outside = {
        "odd.py": b"", "__pycache__/odd.cpython-311.pyc": b"", "../../../bin/tool": b"#!/x/bin/python3\nprint(1)\n",
        "../../../bin/odd": b"launcher", "../../../bin/odd3.11": b"launcher", "../../../share/man/odd.1": b"page",
    }  # fmt: skip
    entries = b"[console_scripts]\nodd = odd:main\n"
    fake_distribution(site, outside, **{"entry_points.txt": entries, "direct_url.json": b"{}", "INSTALLER": b"pip"})
    monkeypatch.syspath_prepend(site)
    parts = unpacked(repacked("odd"))
    assert parts["odd-1.0.data/scripts/tool"] == b"#!python\nprint(1)\n"
    assert parts["odd-1.0.data/data/share/man/odd.1"] == b"page"
    assert sorted(parts) == [
        "odd-1.0.data/data/share/man/odd.1", "odd-1.0.data/scripts/tool", "odd-1.0.dist-info/METADATA",
        "odd-1.0.dist-info/RECORD", "odd-1.0.dist-info/WHEEL", "odd-1.0.dist-info/entry_points.txt", "odd.py",
    ]  # fmt: skip


def test_what_is_not_here_as_wanted_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InstallFailedError, match="no-such-thing is not installed here"):
        repacked("no-such-thing")
    with pytest.raises(InstallFailedError, match=r"pip 0\.1 is wanted, and .* is installed"):
        repacked("pip", "0.1")
    fake_distribution(tmp_path, {"odd.py": b""})
    (tmp_path / "odd.py").unlink()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstallFailedError, match=r"odd is not complete here: .*odd\.py"):
        repacked("odd")


def test_a_distribution_without_a_record_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare-1.0.dist-info").mkdir()
    (tmp_path / "bare-1.0.dist-info" / "METADATA").write_text("Name: bare\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstallFailedError, match="bare is not installed here as a wheel is"):
        repacked("bare")


def test_what_this_queen_has(tmp_path: Path) -> None:
    own = own_rbee()
    assert own.tag == this_platform()
    assert own.cpu == this_cpu() != frozenset()
    assert own.engine is not None
    assert own.engine.endswith(f"-{own.tag.python}-{own.tag.platform}")
    assert "llama-cpp-python==" in own.engine_lock
    directory = tmp_path / "cuda-0.3.36-cp311-linux-x86_64"
    directory.mkdir()
    assert own.for_nodes((), tmp_path).engines == frozenset()
    (directory / "llama_cpp_python-0.3.36-py3-none-any.whl").touch()
    mine = own.for_nodes(["x"], tmp_path)
    assert (mine.engines, mine.wheelhouses) == (frozenset({directory.name}), frozenset({"x"}))
    assert (mine.version, mine.wheel_sha256) == (__version__, own.wheel.sha256)
    assert own.for_nodes((), None).engines == frozenset()
