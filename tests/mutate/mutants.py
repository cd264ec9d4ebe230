"""Mutations: of bytes, and of any field of the message by reflection."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor as Field  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]

INTEGERS: Final = (
    0,
    1,
    -1,
    2,
    3,
    7,
    100,
    2**16,
    2**31 - 1,
    -(2**31),
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
)
NUMBERS: Final = (0.0, 1.0, -1.0, 1e-45, 1e30, -1e30, float("inf"), float("nan"))
WHOLE: Final = frozenset({Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_UINT64})
Random = np.random.Generator


def mutant(message: bytes, random: Random) -> bytes:
    """A message that differs in one place, or in two or three."""
    fields = random.random() < 0.7
    for _ in range(int(random.choice((1, 1, 1, 2, 3)))):
        message = of_fields(message, random) if fields else of_bytes(message, random)
    return message


def of_bytes(message: bytes, random: Random) -> bytes:
    """Bits flipped, bytes taken out, put in, copied to elsewhere, or cut off at the end."""
    if not message:
        return message
    at = int(random.integers(len(message)))
    # Most bytes are weights, and most of what is interesting comes first.
    at = int(random.integers(min(at + 1, len(message))))
    width = int(random.choice((1, 1, 2, 8, 64)))
    match int(random.integers(6)):
        case 0:
            return message[:at] + bytes([message[at] ^ (1 << int(random.integers(8)))]) + message[at + 1 :]
        case 1:
            return message[:at] + message[at + width :]
        case 2:
            return message[:at] + random.bytes(width) + message[at:]
        case 3:
            source = int(random.integers(len(message)))
            return message[:at] + message[source : source + width] + message[at:]
        case 4:
            return message[: int(random.integers(len(message)))]
        case _:
            return message[:at] + random.bytes(width) + message[at + width :]


def of_fields(message: bytes, random: Random) -> bytes:
    """One field of one message changed, taken away, repeated or exchanged."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(message)
    except Exception:  # noqa: BLE001  # bytes were mutated before
        return of_bytes(message, random)
    places: dict[str, list[tuple[Message, Any]]] = {}
    for part in _messages(model):
        for field, _ in part.ListFields():
            places.setdefault(field.full_name, []).append((part, field))
    names = sorted(places)
    found = places[names[int(random.integers(len(names)))]]
    part, field = found[int(random.integers(len(found)))]
    _change(part, field, [other for other, _ in found], random)
    return bytes(model.SerializeToString())


def _messages(message: Message) -> Iterator[Message]:
    """A message and all that are in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == Field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner)


def _change(part: Message, field: Any, others: list[Message], random: Random) -> None:
    if random.random() < 0.1:
        part.ClearField(field.name)
        return
    if not field.is_repeated:
        if field.type == Field.TYPE_MESSAGE:
            getattr(part, field.name).CopyFrom(_copy(getattr(_one(others, random), field.name)))
        else:
            setattr(part, field.name, _another(getattr(part, field.name), field, others, random))
        return
    values = getattr(part, field.name)
    at = int(random.integers(len(values)))
    choice = int(random.integers(6))
    if choice == 0:
        del values[at]
    elif choice == 1:
        values.append(values[at])
    elif choice == 2 and len(values) > 1:
        kept = list(values)
        other = int(random.integers(len(kept)))
        kept[at], kept[other] = kept[other], kept[at]
        kept = [_copy(value) for value in kept]
        del values[:]
        values.extend(kept)
    elif field.type == Field.TYPE_MESSAGE:
        values[at].CopyFrom(_copy(_one(getattr(_one(others, random), field.name), random)))
    else:
        values[at] = _another(values[at], field, others, random)


def _copy(value: Any) -> Any:
    """A value that stays when what it is part of is written over; a message may come to lie in itself."""
    if not isinstance(value, Message):
        return value
    copy = type(value)()
    copy.CopyFrom(value)
    return copy


def _another(value: Any, field: Any, others: list[Message], random: Random) -> Any:
    """Another value of a field: an edge of its range, a neighbour, or what the field is elsewhere."""
    if field.type in WHOLE:
        low, high = (-(2**31), 2**31 - 1) if field.type == Field.TYPE_INT32 else (-(2**63), 2**63 - 1)
        low = 0 if field.type == Field.TYPE_UINT64 else low
        near = (value + 1, value - 1, value * 2, -value)
        return min(max(int(_one((*INTEGERS, *near * 3), random)), low), high)
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return _one((*NUMBERS, value * 1.5), random)
    if field.type == Field.TYPE_ENUM:
        return _one([entry.number for entry in field.enum_type.values], random)
    elsewhere = getattr(_one(others, random), field.name)
    if field.is_repeated:
        elsewhere = _one(elsewhere, random) if len(elsewhere) else value
    if field.type == Field.TYPE_BYTES:
        return _one(
            (b"", elsewhere, value[:-1], value + b"\0", random.bytes(len(value)), b"\xff\xfe"), random
        )
    return _one(("", elsewhere, elsewhere, elsewhere, value + "_", "Conv", "Reshape", "\u00e4\n"), random)


def _one(choices: Any, random: Random) -> Any:
    return choices[int(random.integers(len(choices)))]
