"""What compiled files fit where."""

from dataclasses import replace

import pytest

from queen_rbee.domain.nodes.platform_tag import PlatformTag, engine_directory

DEBIAN_12 = PlatformTag("linux-x86_64", "cp311", "glibc", (2, 36))
ALPINE = PlatformTag("linux-x86_64", "cp311", "musl", (1, 2))
MAC = PlatformTag("darwin-arm64", "cp312", "macos", (14, 5))
OLD_MAC = PlatformTag("darwin-x86_64", "cp312", "macos", (10, 15))


@pytest.mark.parametrize(
    ("there", "here", "fits"),
    [
        pytest.param(DEBIAN_12, DEBIAN_12, True, id="the same"),
        pytest.param(replace(DEBIAN_12, libc_version=(2, 41)), DEBIAN_12, True, id="a newer C library there"),
        pytest.param(replace(DEBIAN_12, libc_version=(2, 35)), DEBIAN_12, False, id="an older C library there"),
        pytest.param(
            replace(DEBIAN_12, libc_version=(2, 4)), replace(DEBIAN_12, libc_version=(2, 36)), False, id="2.4"
        ),
        pytest.param(replace(DEBIAN_12, python="cp312"), DEBIAN_12, False, id="another Python"),
        pytest.param(replace(DEBIAN_12, platform="linux-aarch64"), DEBIAN_12, False, id="another processor"),
        pytest.param(ALPINE, DEBIAN_12, False, id="musl takes nothing of glibc"),
        pytest.param(DEBIAN_12, ALPINE, False, id="glibc takes nothing of musl"),
        pytest.param(MAC, DEBIAN_12, False, id="another system"),
    ],
)
def test_what_was_compiled_here_runs_there(there: PlatformTag, here: PlatformTag, fits: bool) -> None:
    assert there.takes(here) is fits


def test_names_of_directories() -> None:
    assert (DEBIAN_12.name, ALPINE.name, MAC.name) == (
        "linux-x86_64-cp311", "linux-x86_64-musl-cp311", "darwin-arm64-cp312",
    )  # fmt: skip
    assert engine_directory("cuda", "0.3.36", DEBIAN_12) == "cuda-0.3.36-cp311-linux-x86_64"
    assert replace(MAC, python="cp314").python_version == "3.14"


def test_pip_is_offered_every_older_platform_and_no_newer_one() -> None:
    platforms = replace(DEBIAN_12, libc_version=(2, 18)).wheel_platforms()
    assert platforms[0] == "manylinux_2_18_x86_64"
    assert platforms[1:3] == ("manylinux_2_17_x86_64", "manylinux2014_x86_64")
    assert platforms[-2:] == ("manylinux_2_5_x86_64", "manylinux1_x86_64")
    assert ALPINE.wheel_platforms() == ("musllinux_1_2_x86_64", "musllinux_1_1_x86_64", "musllinux_1_0_x86_64")
    assert MAC.wheel_platforms() == ("macosx_14_0_arm64",)
    assert OLD_MAC.wheel_platforms() == ("macosx_10_15_x86_64",)


def test_markers_are_those_of_that_machine() -> None:
    assert MAC.markers()["sys_platform"] == "darwin"
    assert MAC.markers()["platform_machine"] == "arm64"
    assert DEBIAN_12.markers()["platform_system"] == "Linux"
    assert DEBIAN_12.markers()["python_full_version"] == "3.11.0"
