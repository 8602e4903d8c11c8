"""Writes `proto/golden.jsonl`: every message of the contracts, as stock protobuf encodes it.

    python golden.py > ../../proto/golden.jsonl

A line has the message's name, a name for what is in it, its bytes in hexadecimal, and its JSON.
`api/tests/golden.rs` has what larder itself is built on read and write the same. A line that
changes without a change of the contract is a client that no longer understands the server.
"""

import json
import sys
from collections.abc import Iterator

from google.protobuf import any_pb2, duration_pb2, field_mask_pb2, json_format, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

import harness

FILES = (harness.talk, harness.entry, harness.cache, harness.accounts)

# No message of the contracts holds others deeper than this.
MAX_DEPTH = 8

Kind = FieldDescriptor
SIGNED = {
    Kind.TYPE_INT32: 31,
    Kind.TYPE_SINT32: 31,
    Kind.TYPE_SFIXED32: 31,
    Kind.TYPE_INT64: 63,
    Kind.TYPE_SINT64: 63,
    Kind.TYPE_SFIXED64: 63,
}
UNSIGNED = {
    Kind.TYPE_UINT32: 32,
    Kind.TYPE_FIXED32: 32,
    Kind.TYPE_UINT64: 64,
    Kind.TYPE_FIXED64: 64,
}


class Filler:
    """Fills messages with values that differ from field to field, and are the same each time."""

    def __init__(self, choice: int):
        # Which field of each oneof is set.
        self.choice = choice

    def number(self, field: FieldDescriptor, index: int) -> int:
        """One of its own for each field and element: its number, and then some."""
        return field.number * 1000 + index + 1

    def scalar(self, field: FieldDescriptor, index: int) -> object:
        """A value that is not the default."""
        number = self.number(field, index)
        match field.type:
            case Kind.TYPE_BOOL:
                return True
            case Kind.TYPE_STRING:
                return f"{field.name} {index}"
            case Kind.TYPE_BYTES:
                return f"{field.name} {index}".encode() + bytes([0, 255])
            case Kind.TYPE_ENUM:
                values = field.enum_type.values
                return values[1 + index % (len(values) - 1)].number
            case Kind.TYPE_DOUBLE | Kind.TYPE_FLOAT:
                return number + 0.5
            case kind if kind in SIGNED or kind in UNSIGNED:
                return number
        raise AssertionError(f"{field.full_name}: no value for its type")

    def well_known(self, message: Message, field: FieldDescriptor, index: int) -> bool:
        """Fills what has rules of its own; says whether it did."""
        number = self.number(field, index)
        match message:
            case timestamp_pb2.Timestamp():
                message.seconds, message.nanos = 1_700_000_000 + number, 123_000_000
            case duration_pb2.Duration():
                message.seconds, message.nanos = number, 500_000_000
            case field_mask_pb2.FieldMask():
                message.paths.extend(["display_name", "max_keys"])
            case any_pb2.Any():
                message.Pack(error_details_pb2.ErrorInfo(reason="REASON", domain="larder"))
            case _:
                return False
        return True

    def fill(self, message: Message, depth: int = 0) -> None:
        """Sets every field; of each oneof one."""
        assert depth < MAX_DEPTH
        for field in chosen(message.DESCRIPTOR, self.choice):
            self.set(message, field, depth)

    def set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        """Sets one field: two elements where it is repeated, one where it is a map."""
        value = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            value[self.scalar(entry["key"], 0)] = self.scalar(entry["value"], 0)
        elif field.is_repeated:
            for index in range(2):
                if field.message_type:
                    self.message(value.add(), field, index, depth)
                else:
                    value.append(self.scalar(field, index))
        elif field.message_type:
            value.SetInParent()
            self.message(value, field, 0, depth)
        else:
            setattr(message, field.name, self.scalar(field, 0))

    def message(self, value: Message, field: FieldDescriptor, index: int, depth: int) -> None:
        """Fills a message inside another."""
        if not self.well_known(value, field, index):
            self.fill(value, depth + 1)


class Extremes(Filler):
    """The largest and smallest of everything."""

    def scalar(self, field: FieldDescriptor, index: int) -> object:
        """The smallest number, then the largest; text and bytes of every length of a character."""
        if bits := SIGNED.get(field.type):
            return -(1 << bits) if index == 0 else (1 << bits) - 1
        if bits := UNSIGNED.get(field.type):
            return (1 << bits) - 1
        match field.type:
            case Kind.TYPE_STRING:
                return '\x00\x7f\x80\u07ff\u0800\uffff\U0010ffff "\\/<gö>'
            case Kind.TYPE_BYTES:
                return bytes(range(256))
            case Kind.TYPE_ENUM:
                return field.enum_type.values[-1].number
        return super().scalar(field, index)

    def well_known(self, message: Message, field: FieldDescriptor, index: int) -> bool:
        """The ends of time, as protobuf has them."""
        match message:
            case timestamp_pb2.Timestamp():
                message.FromJsonString("9999-12-31T23:59:59.999999999Z")
            case duration_pb2.Duration():
                message.FromJsonString("315576000000s")
            case _:
                return super().well_known(message, field, index)
        return True


class Present(Filler):
    """What is there, and has its default: only fields that can tell are set."""

    def set(self, message: Message, field: FieldDescriptor, depth: int) -> None:  # noqa: ARG002
        """Sets a field with presence to its default."""
        if field.has_presence and field.message_type:
            getattr(message, field.name).SetInParent()
        elif field.has_presence:
            setattr(message, field.name, field.default_value)


def chosen(descriptor: Descriptor, choice: int) -> list[FieldDescriptor]:
    """The fields to set: all, but of each oneof one."""
    oneofs = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    left_out = {
        field.number
        for oneof in oneofs
        for at, field in enumerate(oneof.fields)
        if at != choice % len(oneof.fields)
    }
    return [field for field in descriptor.fields if field.number not in left_out]


def descriptors() -> Iterator[Descriptor]:
    """Every message of the contracts, those inside others too."""

    def inside(descriptor: Descriptor) -> Iterator[Descriptor]:
        if not descriptor.GetOptions().map_entry:
            yield descriptor
            for nested in descriptor.nested_types:
                yield from inside(nested)

    for file in FILES:
        for descriptor in file.DESCRIPTOR.message_types_by_name.values():
            yield from inside(descriptor)


def cases(descriptor: Descriptor) -> Iterator[tuple[str, Message]]:
    """A message in each of its forms."""
    new = GetMessageClass(descriptor)
    yield "empty", new()
    choices = max([1, *(len(oneof.fields) for oneof in descriptor.oneofs)])
    for choice in range(choices):
        for name, kind in (("full", Filler), ("extreme", Extremes), ("present", Present)):
            message = new()
            kind(choice).fill(message)
            yield f"{name} {choice}", message


def lines() -> Iterator[str]:
    """The file."""
    for descriptor in sorted(descriptors(), key=lambda descriptor: descriptor.full_name):
        seen = set()
        for name, message in cases(descriptor):
            encoded = message.SerializeToString(deterministic=True)
            if encoded in seen:
                continue
            seen.add(encoded)
            line = {
                "message": descriptor.full_name,
                "case": name,
                "hex": encoded.hex(),
                "json": json_format.MessageToDict(message),
            }
            yield json.dumps(line, sort_keys=False)


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines())
