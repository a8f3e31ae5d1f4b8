"""Sparse matrices of SciPy's `.npz` files, read without pickle and without SciPy."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import numpy as np

from recdistill.dataset.files import cut_short
from recdistill.errors import DataError


def read_matrix(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of each stored entry of a CSR, CSC or COO matrix.

    Shapes:
        Returns: three of [n], int64, int64, float64.

    Raises:
        DataError: the file is broken, holds Python objects, or is no such matrix.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy"): _array(path, archive, name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise cut_short(path, str(error)) from error
    format = arrays.get("format")
    kind = format.item() if format is not None and format.size == 1 else None
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    wanted = {"coo": ("row", "col"), "csr": ("indices", "indptr"), "csc": ("indices", "indptr")}.get(str(kind))
    if wanted is None or any(name not in arrays for name in (*wanted, "data", "shape")):
        raise _no_matrix(path, f"its format is {str(kind)[:20]!r} and its arrays are {', '.join(sorted(arrays))[:200]}")
    one, other = (_whole(path, name, arrays[name]) for name in wanted)
    shape = _whole(path, "shape", arrays["shape"]).tolist()
    value = _value(path, arrays["data"])
    if len(shape) != 2:
        raise _no_matrix(path, f"its shape is {shape[:9]}")
    if kind == "coo":
        row, column = one, other
    else:
        n = shape[0] if kind == "csr" else shape[1]
        step = np.diff(other)
        if len(other) != n + 1 or other[0] != 0 or (step < 0).any() or step.sum() != len(one):
            raise _no_matrix(path, "its indptr does not fit its shape and its indices")
        row, column = np.repeat(np.arange(n), step), one
        if kind == "csc":
            row, column = column, row
    if not len(row) == len(column) == len(value):
        raise _no_matrix(path, f"it has {len(row)} rows, {len(column)} columns and {len(value)} values")
    for place, size in ((row, shape[0]), (column, shape[1])):
        if len(place) and not 0 <= place.min() <= place.max() < size:
            raise _no_matrix(path, f"an index is outside its shape {shape}")
    return row, column, value


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an archive, if the bytes are there that its header promises."""
    stream = io.BytesIO(archive.read(name))
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    except (TokenError, SyntaxError, TypeError) as error:
        raise ValueError(f"{name} has no header of an array") from error
    if dtype.hasobject:
        raise DataError(
            f"{path} holds pickled Python objects in {name!r}: it is not read",
            "unpickling runs whatever code the file's author put into it",
            "write the matrix with scipy.sparse.save_npz, which needs no pickle",
        )
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(stream.getbuffer()) - stream.tell():
        raise ValueError(f"{name} does not hold the {count} values that it promises")
    flat = np.frombuffer(stream.getbuffer(), dtype, count, stream.tell()) if count and dtype.itemsize else np.zeros(0)
    return flat.reshape(shape, order="F" if fortran else "C") if count and dtype.itemsize else flat


def _whole(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise _no_matrix(path, f"{name} is of type {array.dtype} and has {array.ndim} dimensions")
    return array.astype(np.int64)


def _value(path: Path, array: np.ndarray) -> np.ndarray:
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise _no_matrix(path, f"data is of type {array.dtype} and has {array.ndim} dimensions")
    return array.astype(np.float64)


def _no_matrix(path: Path, because: str) -> DataError:
    return DataError(
        f"{path} is no sparse matrix of users and items: {because}",
        "a .npz file is read as a CSR, CSC or COO matrix of scipy.sparse.save_npz",
        "convert it: scipy.sparse.save_npz(NEW, matrix.tocsr())",
    )
