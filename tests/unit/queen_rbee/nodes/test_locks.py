"""Lock files: what counts where."""

from importlib.resources import files
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.domain.nodes.locks import Pin, as_lock, pins_for
from queen_rbee.domain.nodes.platform_tag import PlatformTag

LINUX = PlatformTag("linux-x86_64", "cp311", "glibc", (2, 36)).markers()
INTEL_MAC = PlatformTag("darwin-x86_64", "cp312", "macos", (13, 0)).markers()
ROOT = Path(__file__).parents[4]
LOCK = f"""# a comment==1
cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:{"c" * 64}
Ruamel.Yaml==48.0 ; platform_machine == 'x86_64' and sys_platform == 'darwin' \\
    --hash=sha256:{"d" * 64}
ruamel-yaml==50.0 ; platform_machine != 'x86_64' or sys_platform != 'darwin' \\
    --hash=sha256:{"e" * 64}
"""


def test_markers_choose_the_entry_and_every_hash_comes_along() -> None:
    assert pins_for(LOCK, LINUX) == (
        Pin("cffi", "2.1.1", (f"sha256:{'a' * 64}", f"sha256:{'b' * 64}")),
        Pin("ruamel-yaml", "50.0", (f"sha256:{'e' * 64}",)),
    )
    assert [pin.version for pin in pins_for(LOCK, INTEL_MAC)] == ["2.1.1", "48.0"]


_PINS = st.builds(
    Pin,
    name=st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?", fullmatch=True),
    version=st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True),
    hashes=st.lists(st.integers(0, 16**64 - 1).map("sha256:{:064x}".format), min_size=1, max_size=3).map(tuple),
)


@given(st.lists(_PINS, unique_by=lambda pin: pin.name))
def test_what_was_written_is_read_back(pins: list[Pin]) -> None:
    assert pins_for(as_lock(pins, "# header\n"), LINUX) == tuple(sorted(pins, key=lambda pin: pin.name))


def test_the_lock_that_goes_to_nodes_is_the_one_of_this_checkout() -> None:
    shipped = files("queen_rbee.nodes").joinpath("node.lock").read_text()
    assert shipped == (ROOT / "requirements.lock").read_text(), "run scripts/lock"


def test_the_shipped_lock_has_a_hash_for_everything_on_every_platform() -> None:
    shipped = files("queen_rbee.nodes").joinpath("node.lock").read_text()
    for markers in (LINUX, INTEL_MAC):
        pins = pins_for(shipped, markers)
        assert {"aiohttp", "asyncssh", "cryptography", "uvicorn"} <= {pin.name for pin in pins}
        assert len({pin.name for pin in pins}) == len(pins)
        assert all(pin.hashes for pin in pins)
        assert "colorama" not in {pin.name for pin in pins}
