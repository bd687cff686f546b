"""GGUF files made from the embedded model: of any size, in any number of parts, all of them loadable."""

from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
from tests.support.models import storyteller


def padded_model(*, size_bytes: int = 0, parts: int = 1) -> list[bytes]:
    """The storyteller's files, the last one filled up with zeros behind its tensors to `size_bytes`."""
    if parts == 1:
        whole = storyteller()
        return [whole + bytes(max(0, size_bytes - len(whole)))]
    with TemporaryDirectory() as directory:
        source = Path(directory) / "whole.gguf"
        source.write_bytes(storyteller())
        return _split(gguf.GGUFReader(source), Path(directory), parts)


def _split(reader: gguf.GGUFReader, directory: Path, parts: int) -> list[bytes]:
    """As llama.cpp's own tool does it: metadata in the first part, tensors spread over all."""
    shares = np.array_split(np.arange(len(reader.tensors)), parts)
    files = []
    for number, share in enumerate(shares):
        path = directory / f"part-{number}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        if number == 0:
            _copy_metadata(reader, writer)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", parts)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for index in share:
            tensor = reader.tensors[index]
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        files.append(path.read_bytes())
    return files


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind, inner = field.types[0], field.types[-1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
