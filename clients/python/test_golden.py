"""`proto/golden.jsonl` is what stock protobuf makes of the contract, of all of it."""

import json

from google.protobuf.message_factory import GetMessageClass

import golden
from stubs import ROOT

FILE = ROOT / "proto/golden.jsonl"


def test_the_file_is_what_stock_protobuf_writes():
    written = FILE.read_text().splitlines()
    for line, expected in zip(written, golden.lines(), strict=True):
        assert line == expected, "python golden.py > ../../proto/golden.jsonl"


def test_every_field_stands_in_the_file():
    by_name = {descriptor.full_name: descriptor for descriptor in golden.descriptors()}
    missing = {field.full_name for descriptor in by_name.values() for field in descriptor.fields}
    for line in map(json.loads, FILE.read_text().splitlines()):
        descriptor = by_name[line["message"]]
        message = GetMessageClass(descriptor).FromString(bytes.fromhex(line["hex"]))
        missing -= {field.full_name for field, _ in message.ListFields()}
    assert missing == set()
