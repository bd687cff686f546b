"""Apple machines, from what `sysctl` and `system_profiler` print there."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_hive.domain.devices.apple_facts import (
    AppleFacts,
    AppleGpu,
    apple_devices,
    parse_displays,
    parse_sysctl,
    working_set_bytes,
)
from rbee_shared.machine_limits import Memory

GIB = 1024**3
MACHINE = "machdep.cpu.brand_string: Apple M3 Max\nhw.memsize: 38654705664\nhw.optional.arm64: 1\n"
DISPLAYS = {
    "SPDisplaysDataType": [
        {
            "_name": "Apple M3 Max",
            "spdisplays_mtlgpufamilysupport": "spdisplays_metal3",
            "spdisplays_ndrvs": [{"_name": "Color LCD", "_spdisplays_pixels": "3456 x 2234"}],
            "spdisplays_vendor": "sppci_vendor_Apple",
            "sppci_bus": "spdisplays_builtin",
            "sppci_cores": "30",
            "sppci_device_type": "spdisplays_gpu",
            "sppci_model": "Apple M3 Max",
        }
    ]
}


def test_a_machine_as_it_prints_itself() -> None:
    assert parse_sysctl(MACHINE + "iogpu.wired_limit_mb: 0\n") == AppleFacts("Apple M3 Max", 36 * GIB, True)
    assert parse_sysctl(MACHINE + "iogpu.wired_limit_mb: 30000\n") == AppleFacts(
        "Apple M3 Max", 36 * GIB, True, 30000 * 1024**2
    )
    assert parse_displays(json.dumps(DISPLAYS)) == AppleGpu("Apple M3 Max", 30)


def test_an_intel_machine_is_recognised() -> None:
    intel = parse_sysctl(
        "machdep.cpu.brand_string: Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz\nhw.memsize: 17179869184\n"
    )

    assert intel == AppleFacts("Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz", 16 * GIB, False)
    found = apple_devices(intel, None, Memory(16 * GIB, 8 * GIB))
    assert (found.names, found.gpus, len(found.problems)) == ((), (), 1)


@pytest.mark.parametrize(
    "text", ["", "hw.memsize: much", "hw.memsize: -1", "hw.memsize: 0", "sysctl: unknown oid", "\0"]
)
def test_a_machine_that_does_not_tell_its_memory(text: str) -> None:
    facts = parse_sysctl(text)

    assert facts is None
    assert len(apple_devices(facts, None, Memory(1, 1)).problems) == 1


def test_a_chip_without_a_name_is_still_apples() -> None:
    facts = parse_sysctl("hw.memsize: 8589934592\nhw.optional.arm64: 1\n")
    assert facts is not None
    assert facts.chip == "Apple"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"SPDisplaysDataType": {}}',
        '{"SPDisplaysDataType": [1, {"spdisplays_vendor": "sppci_vendor_amd", "sppci_model": "Radeon"}]}',
        "[" * 100_000,
    ],
)
def test_displays_without_an_apple_gpu(text: str) -> None:
    assert parse_displays(text) is None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"_name": "kHW_AppleM1"}, AppleGpu("kHW_AppleM1", None)),
        ({}, AppleGpu("Apple GPU", None)),
        ({"sppci_model": "x" * 9999, "sppci_cores": "8 or so"}, AppleGpu("x" * 255, None)),
    ],
)
def test_displays_that_tell_little(entry: dict[str, str], expected: AppleGpu) -> None:
    text = json.dumps({"SPDisplaysDataType": [{"spdisplays_vendor": "sppci_vendor_Apple", **entry}]})
    assert parse_displays(text) == expected


@given(st.text())
def test_no_output_of_theirs_is_an_error(text: str) -> None:
    parse_sysctl(text)
    parse_displays(text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_document_of_theirs_is_an_error(document: object) -> None:
    parse_displays(json.dumps({"SPDisplaysDataType": document}))
    parse_displays(json.dumps({"SPDisplaysDataType": [document]}))


@pytest.mark.parametrize(
    ("memory_gib", "limit_gib", "least_gib", "most_gib"),
    [
        # what Metal was seen to recommend: never more than that, and not much less
        pytest.param(16, None, 10.6, 10.67, id="16 GiB: 10.67"),
        pytest.param(32, None, 21.3, 21.34, id="32 GiB: 21.33"),
        pytest.param(64, None, 48, 48, id="64 GiB: 48"),
        pytest.param(128, None, 96, 96, id="128 GiB: 96"),
        pytest.param(64, 56, 56, 56, id="what the owner set"),
        pytest.param(64, 999, 64, 64, id="which is never more than there is"),
    ],
)
def test_working_set(memory_gib: int, limit_gib: int | None, least_gib: float, most_gib: float) -> None:
    limit_bytes = None if limit_gib is None else limit_gib * GIB
    size = working_set_bytes(AppleFacts("M", memory_gib * GIB, True, limit_bytes))
    assert least_gib * GIB <= size <= most_gib * GIB


@pytest.mark.parametrize(("ram_free_gib", "free_gib"), [(60, 48), (10, 10)])
def test_a_unified_memory_is_free_as_far_as_both_limits_let_it(ram_free_gib: int, free_gib: int) -> None:
    ram = Memory(64 * GIB, ram_free_gib * GIB)
    found = apple_devices(AppleFacts("Apple M2 Max", 64 * GIB, True), AppleGpu("Apple M2 Max", 38), ram)

    (gpu,), (name,) = found.gpus, found.names
    assert (gpu.id, name.id, gpu.backend, name.worker_device) == ("gpu0", "gpu0", "metal", "metal:0")
    assert (gpu.name, gpu.cores, gpu.unified, gpu.vram_bytes, gpu.free_bytes) == (
        "Apple M2 Max", 38, True, 48 * GIB, free_gib * GIB
    )  # fmt: skip
    assert (gpu.utilisation_pct, gpu.temperature_c) == (None, None)


def test_a_gpu_that_was_not_asked_yet_is_called_after_its_chip() -> None:
    (gpu,) = apple_devices(AppleFacts("Apple M1", 8 * GIB, True), None, Memory(8 * GIB, GIB)).gpus
    assert (gpu.name, gpu.cores) == ("Apple M1", None)
