"""What llama.cpp says it was compiled with, as a list of names. Pure."""


def features(system_info: str) -> tuple[str, ...]:
    """`AVX2`, `CUDA:ARCHS=890`: of `CPU : SSE3 = 1 | AVX2 = 1 | CUDA : ARCHS = 890 | `, in its order, once each.

    A switch that is on is its name, one that is off is left out; a part that is not the processor's own stands before
    its names.
    """
    found: dict[str, None] = {}
    part = ""
    for entry in system_info.split("|"):
        head, separator, rest = entry.partition(" : ")
        if separator:
            part = "" if head.strip() == "CPU" else f"{head.strip()}:"
        name, _, value = (rest if separator else entry).partition("=")
        if (name := name.strip()) and (value := value.strip()) != "0":
            found[f"{part}{name}" if value in {"", "1"} else f"{part}{name}={value}"] = None
    return tuple(found)
