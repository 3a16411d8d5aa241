"""What the Hugging Face hub says of a data set, without downloading it."""

from __future__ import annotations

_SECONDS = 10.0


def size_of(dataset: str) -> int | None:
    """The size in bytes of all files of a data set on the hub; None where the hub does not say."""
    from huggingface_hub import HfApi

    # Network, hub and library each have errors of their own here; whichever it is, the size is not known.
    try:
        files = HfApi().dataset_info(dataset, files_metadata=True, timeout=_SECONDS).siblings or []
    except Exception:
        return None
    return sum(file.size or 0 for file in files)
