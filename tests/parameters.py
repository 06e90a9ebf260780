"""Parameters in memory, as an export reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def reader(params: Mapping[str, Any]) -> Callable[[str, int | None], np.ndarray]:
    """Gives one array of the tree by its path, or one index of the array's first axis."""

    def read(path: str, index: int | None) -> np.ndarray:
        array: Any = params
        for name in path.split("/"):
            array = array[name]
        return np.asarray(array if index is None else array[index])

    return read
