"""Shows a transfer to whoever waits for it: progress events of the whole model, and a line where nothing moves."""

from collections.abc import Sequence

from rbee_hive.domain.models.transfer import Transfer
from rbee_hive.provisions import Provision
from rbee_hive.tally import Tally
from rbee_shared.contracts.progress import ProgressEvent


class TransferProgress:
    """Told of each file in turn. `sizes_bytes`: of all files; None where the server has not said yet."""

    def __init__(self, job: Provision, tally: Tally, sizes_bytes: Sequence[int | None]) -> None:
        self._job = job
        self._tally = tally
        known = [size for size in sizes_bytes if size is not None]
        self._total_bytes = sum(known) if len(known) == len(sizes_bytes) else None
        self._before_bytes = 0
        self._done_bytes = 0
        self._told: tuple[str, str] = ("fetching", "")

    def tell(self, transfer: Transfer) -> None:
        """How far the current file is."""
        if transfer.doing == "fetching":
            self._tally.download_bytes += max(0, transfer.done_bytes - self._done_bytes)
        self._done_bytes = transfer.done_bytes
        told = (transfer.doing, transfer.note)
        if told != self._told:
            self._told = told
            self._say(transfer)
        total_bytes = self._total_bytes or transfer.total_bytes
        if transfer.doing != "checking" and total_bytes:
            done_bytes = min(total_bytes, self._before_bytes + transfer.done_bytes)
            rate = transfer.per_s
            self._job.progress(
                ProgressEvent(
                    stage="download",
                    done=done_bytes,
                    total=total_bytes,
                    unit="bytes",
                    per_s=round(rate, 1) if rate is not None else None,
                    eta_s=round((total_bytes - done_bytes) / rate, 1) if rate else None,
                )
            )

    def next_file(self) -> None:
        """The current file is complete."""
        self._before_bytes += self._done_bytes
        self._done_bytes = 0

    def _say(self, transfer: Transfer) -> None:
        if transfer.doing == "checking":
            self._job.narrator.tell("check_partial", "checking what was fetched before", cute="🔎")
        elif transfer.note:
            self._job.narrator.tell("transfer_waits", transfer.note, cute="⏳", level="warning")
