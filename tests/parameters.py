"""Parameters in memory, as an export reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def reader(params: Mapping[str, Any]) -> Callable[[str, tuple[int, ...]], np.ndarray]:
    """Gives one array of the tree by its path, or what lies at an index of the array's first axes."""

    def read(path: str, index: tuple[int, ...]) -> np.ndarray:
        array: Any = params
        for name in path.split("/"):
            array = array[name]
        return np.asarray(array[index])

    return read
