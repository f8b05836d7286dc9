"""A look into an ONNX file before any library loads it: does it name files outside itself?

ONNX Runtime would follow such a name (https://onnx.ai/onnx/repo-docs/ExternalData.html), and those bytes have no md5.
"""

from collections.abc import Iterator
from typing import Final

from api.errors import DataError

DEEPEST = 64

# The parts of onnx.proto3 through which a tensor can be reached: message -> {field number: message}.
_SCHEMA: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a Tensor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def refuse_external_data(content: bytes, name: str) -> None:
    """DataError when the model reads tensors from other files, or is no protobuf message at all."""
    try:
        external = _has_external(memoryview(content), "Model", 0)
    except (IndexError, ValueError) as cause:
        raise DataError(f"{name} is not an ONNX file ({cause}). Train again.") from None
    if external:
        raise DataError(f"{name} keeps tensors in other files, whose bytes nobody verified. Export it as one file.")


def _has_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    for number, value in _fields(message):
        if kind == "Tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)):
            return True
        child = _SCHEMA[kind].get(number)
        if child and isinstance(value, memoryview) and _has_external(value, child, depth + 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Each field's number with its value; numbers of fixed width, which no field of interest has, as 0."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif wire == _BYTES:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("it ends too early")
            yield number, message[at : at + length]
            at += length
        elif wire in (_FIXED32, _FIXED64):
            at += 4 if wire == _FIXED32 else 8
            yield number, 0
        else:
            raise ValueError(f"wire type {wire}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends too early")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
