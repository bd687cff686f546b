"""What a build says about itself when it is loaded, and whether that is the build that was wanted. Pure.

The report comes from a process that may have crashed, been killed or printed anything: nothing in it is trusted.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rbee_hive.domain.builds.build_plan import Target
from rbee_shared.contracts.provisions import BuildKind, BuildRow, BuildSource
from rbee_shared.redaction import printable_line

_MOST_ENTRIES = 64
_LONGEST = 200


@dataclass(frozen=True)
class ProbeReport:
    """What is really in a library. `devices`: their descriptions, for each backend that is in it."""

    version: str
    backends: tuple[str, ...]
    devices: Mapping[str, tuple[str, ...]]
    features: tuple[str, ...]
    missing: tuple[str, ...]
    python: str
    platform: str

    def as_build(self, build_id: str, kind: BuildKind, source: BuildSource, *, made_at_unix: int) -> BuildRow:
        """The catalog's row of the build that has told this."""
        return BuildRow(
            id=build_id,
            kind=kind,
            version=self.version,
            backends=self.backends,
            features=self.features,
            python=self.python,
            platform=self.platform,
            made_at_unix=made_at_unix,
            source=source,
        )


@dataclass(frozen=True)
class ProbeFailure:
    """There is no report, and why."""

    why: str


def read_probe(lines: Sequence[str], how_it_ended: str) -> ProbeReport | ProbeFailure:
    """The last line that a probe printed as JSON; `how_it_ended` (`killed by SIGSEGV`) explains its absence."""
    for line in reversed(lines):
        record = _record(line)
        if record is None:
            continue
        if isinstance(error := record.get("error"), str):
            return ProbeFailure(printable_line(error)[: _LONGEST * 2])
        if isinstance(record.get("version"), str):
            return _report(record)
    if "SIGILL" in how_it_ended:
        return ProbeFailure("it was made for another processor (killed by SIGILL)")
    return ProbeFailure(f"loading it ended without a word ({how_it_ended})")


def why_refused(kind: BuildKind, report: ProbeReport, target: Target) -> str | None:
    """Why the build is not the one that was wanted; None when it is."""
    if kind not in report.backends:
        return f"the library has no {kind} backend, only {', '.join(report.backends) or 'none'}"
    if report.version != target.version:
        return f"it is llama-cpp-python {report.version}, and this rbee works with {target.version}"
    if (report.python, report.platform) != (target.python, target.platform):
        return f"it was loaded by {report.python} on {report.platform}, not by {target.python} on {target.platform}"
    if report.missing:
        return f"a worker needs modules beside it that are not there: {', '.join(report.missing)}"
    return None


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _report(record: Mapping[str, Any]) -> ProbeReport:
    devices = record.get("devices")
    return ProbeReport(
        version=_text(record["version"]),
        backends=_texts(record.get("backends")),
        devices={_text(name): _texts(there) for name, there in devices.items()} if isinstance(devices, dict) else {},
        features=_texts(record.get("features")),
        missing=_texts(record.get("missing")),
        python=_text(record.get("python")),
        platform=_text(record.get("platform")),
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(entry) for entry in value[:_MOST_ENTRIES]) if isinstance(value, list) else ()


def _text(value: object) -> str:
    return printable_line(value)[:_LONGEST] if isinstance(value, str) else ""
