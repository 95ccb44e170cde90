"""Meta's `MaskData`: columns of one length, of torch tensors, arrays and lists."""

from __future__ import annotations

from collections.abc import ItemsView
from copy import deepcopy
from typing import Any

import numpy as np

from samrt.tensors import is_tensor, loaded_torch, to_numpy


class MaskData:
    """Named columns that are filtered and lengthened together."""

    def __init__(self, **columns: Any) -> None:
        self._columns: dict[str, Any] = {}
        for name, column in columns.items():
            self[name] = column

    def __setitem__(self, name: str, column: Any) -> None:
        if not (isinstance(column, list | np.ndarray) or is_tensor(column)):
            raise AssertionError(f"MaskData takes lists, arrays and tensors, not {type(column).__name__}")
        self._columns[name] = column

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __delitem__(self, name: str) -> None:
        del self._columns[name]

    def items(self) -> ItemsView[str, Any]:
        """The columns by name."""
        return self._columns.items()

    def filter(self, keep: Any) -> None:
        """Keep the rows of a tensor of indices, or of bool for each row, in its order."""
        chosen = to_numpy(keep)
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        for name, column in self.items():
            if is_tensor(column):
                self._columns[name] = column[keep.to(column.device)]
            elif isinstance(column, np.ndarray):
                self._columns[name] = column[rows]
            else:
                self._columns[name] = [column[row] for row in rows]

    def cat(self, new_stats: MaskData) -> None:
        """Append the rows of another of the same columns; columns that are missing here are taken over."""
        for name, column in new_stats.items():
            if name not in self._columns:
                self._columns[name] = deepcopy(column)
            elif is_tensor(column):
                self._columns[name] = loaded_torch().cat([self[name], column])
            elif isinstance(column, np.ndarray):
                self._columns[name] = np.concatenate([self[name], column])
            else:
                self._columns[name] = self[name] + deepcopy(column)

    def to_numpy(self) -> None:
        """Turn tensors into arrays."""
        for name, column in self.items():
            if is_tensor(column):
                self._columns[name] = to_numpy(column)
