"""A hive that only makes a worker build: `build_hive.py HOME KIND REQUIREMENT`. Prints its path, or the error."""

import json
import sys
from pathlib import Path

import anyio
from tests.support.builds import Audience, builder

from rbee_shared.errors import RbeeError


async def main(home: Path, kind: str, requirement: str) -> None:
    audience = Audience()
    async with builder(home, audience, engine=requirement) as made:
        try:
            row = await made.provide(kind, audience.narrator, audience.shown.append, rebuild=True)
        except RbeeError as error:
            print(json.dumps({"code": error.code, "message": error.message}))
        else:
            print(json.dumps({"path": row.path}))


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3])
