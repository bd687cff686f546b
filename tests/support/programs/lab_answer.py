"""An application of a node's own: has the first worker of the hive here answer until this is ended, or the model is.

lab_answer.py HIVE_URL TOKEN_FILE  says "token" when the first token has come, and "end" when the last has.
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import IO, Any

PROMPT = {"prompt": "once upon a time", "max_tokens": 30_000, "temperature": 0, "ignore_eos": True}


def call(url: str, key: str, body: dict[str, Any] | None = None) -> IO[bytes]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Authorization": f"Bearer {key}"})
    answer: IO[bytes] = urllib.request.urlopen(request, timeout=60)
    return answer


def main(hive_url: str, token_file: str) -> None:
    with call(f"{hive_url}/v1/workers/list", Path(token_file).read_text().strip()) as answer:
        worker = json.load(answer)["workers"][0]
    said = set()
    with call(f"{worker['url']}/execute", worker["api_key"], PROMPT) as events:
        for line in events:
            kind = line.decode().strip().removeprefix("event: ")
            if line.startswith(b"event: ") and kind in {"token", "end", "error"} and kind not in said:
                said.add(kind)
                print(kind, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
