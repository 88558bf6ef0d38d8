"""Files of PyTorch: written whole, and read without running any code they may hold."""

import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from onelabel.files import PathLike, whole_file


def write(path: PathLike, content: Mapping[str, object]) -> None:
    """Write tensors and plain values, whole or not at all."""
    # To memory first: PyTorch would report a full disk by an error of its own, and
    # write the file's temporary name into it.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def content_of(data: bytes) -> Any:
    """Give what the bytes of a file hold; a ValueError where they are damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the file holds instead
            return torch.load(io.BytesIO(data), "cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes raise anything
        raise ValueError("no file of PyTorch, or damaged") from error
