"""Fetches one file and ends: `fetcher.py URL SHA256 SIZE TARGET`. To be killed in the middle of it."""

import sys
from pathlib import Path

import anyio

from rbee_hive.domain.models.transfer import Limits, Source
from rbee_hive.models.download import fetch
from rbee_hive.models.transfer_http import download_client


async def _main(url: str, sha256: str, size_bytes: int, target: Path) -> None:
    limits = Limits(disk_margin_bytes=0)
    async with download_client(limits) as http:
        await fetch(Source(url, sha256, size_bytes), target, http=http, tell=lambda _: None, limits=limits)


if __name__ == "__main__":
    anyio.run(_main, sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
