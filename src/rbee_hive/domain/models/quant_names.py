"""What the name of a GGUF file says: its quantization, its place in a split model, and whether it is a model at all."""

import re
from dataclasses import dataclass

_QUANT = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(?:UD-)?(?:I?Q\d+(?:_(?:K|S|M|L|XS|XL|XXS|XXL|NL|0|1|4|8))*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_EXTENSION = ".gguf"
_FULL_FLOATS = {"FP16": "F16", "FP32": "F32"}


@dataclass(frozen=True)
class SplitPart:
    """`x-00002-of-00003.gguf`: stem `x`, number 2 of count 3. Numbers begin with 1."""

    stem: str
    number: int
    count: int


def is_gguf(path: str) -> bool:
    return path.lower().endswith(_EXTENSION)


def split_part(path: str) -> SplitPart | None:
    """Which part of a split model that file is; None if it is no part of one."""
    match = _SPLIT.fullmatch(path)
    return SplitPart(match["stem"], int(match["number"]), int(match["count"])) if match else None


def quant_of(path: str) -> str | None:
    """The quantization that a file's name tells, or else its folder's, in capitals: `Q4_K_M`, `UD-IQ2_XXS`, `F16`.

    Of several in one name the last counts: `Q8-distill.Q4_K_M.gguf` is Q4_K_M.
    """
    for name in reversed(path.split("/")):
        if found := _QUANT.findall(name):
            return normal_quant(found[-1])
    return None


def normal_quant(text: str) -> str:
    """One spelling for what people write in several: capitals, and `F16` for `FP16`."""
    upper = text.upper()
    return _FULL_FLOATS.get(upper, upper)


def is_projector(path: str) -> bool:
    """Whether it is the part of a vision or audio model that turns its input into embeddings."""
    return "mmproj" in _basename(path)


def is_companion(path: str, repo: str) -> bool:
    """Whether it is no model but goes with one: a projector, an importance matrix, or a LoRA adapter.

    A name says `lora` also of a model that was trained so; then the repository's name says it too.
    """
    name = _basename(path)
    words = set(re.split(r"[^a-z0-9]+", name))
    adapter = bool(words & {"lora", "adapter"}) and not re.search(r"lora|adapter", repo.lower())
    matrix = "imatrix" in words and quant_of(name) is None
    return is_projector(path) or adapter or matrix


def _basename(path: str) -> str:
    return path.rpartition("/")[2].lower()
