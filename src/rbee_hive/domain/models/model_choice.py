"""Which row of the catalog a reference means, when a repository is there in several quantizations or revisions."""

from collections.abc import Iterable

from rbee_shared.contracts.models import ModelRow
from rbee_shared.model_ref import ModelRef

USUAL_QUANT = "Q4_K_M"


def best_match(rows: Iterable[ModelRow], ref: ModelRef) -> ModelRow | None:
    """The row that `ref` means, None if none fits. Of several: one with files, the usual quantization, the newest."""
    fitting = [row for row in rows if _has_revision(row, ref.revision) and _has_wish(row, ref.wish)]
    fitting = [row for row in fitting if ref.sha256 is None or row.sha256 in {None, ref.sha256}]
    return max(fitting, key=_preferred, default=None)


def _has_revision(row: ModelRow, wanted: str) -> bool:
    """A commit may be shortened; a branch means a row that was registered or fetched by that name."""
    if not wanted or wanted in {row.revision, row.asked_revision}:
        return True
    return _is_commit(wanted) and row.revision.startswith(wanted)


def _is_commit(text: str) -> bool:
    return len(text) >= 7 and set(text) <= set("0123456789abcdef")  # noqa: PLR2004 - as git shortens it


def _has_wish(row: ModelRow, wish: str) -> bool:
    return not wish or row.file == wish or wish.upper() in {(row.quant or "").upper(), row.file.upper()}


def _preferred(row: ModelRow) -> tuple[bool, bool, int, str]:
    return (row.is_downloaded, (row.quant or "").upper() == USUAL_QUANT, row.downloaded_at_unix or 0, row.id)
