"""Writes avro.tsv: values of random Avro schemas as fastavro writes them, and where the id is in each.
Columns: schema, pointer, value in hexadecimal, id in hexadecimal (empty where it is null).

pip install fastavro && python3 avro.py > avro.tsv
"""

import io
import json
import random
import uuid

from fastavro import parse_schema, schemaless_writer

dice = random.Random(20)
count = 0


def name():
    global count
    count += 1
    return f"N{count}"


def text():
    return "".join(dice.choice("abcxyzé0") for _ in range(dice.randrange(6)))


def some(depth):
    """A schema and a value of it."""
    kinds = ["null", "boolean", "int", "long", "float", "double", "string", "bytes", "fixed", "enum"]
    if depth < 3:
        kinds += ["array", "map", "union", "record", "record"]
    kind = dice.choice(kinds)
    if kind == "null":
        return kind, None
    if kind == "boolean":
        return kind, dice.random() < 0.5
    if kind == "int":
        return kind, dice.randrange(-(2**31), 2**31)
    if kind == "long":
        return kind, dice.randrange(-(2**63), 2**63)
    if kind in ("float", "double"):
        return kind, dice.randrange(1000) / 8
    if kind == "string":
        return kind, text()
    if kind == "bytes":
        return kind, text().encode()
    if kind == "fixed":
        size = dice.randrange(5)
        return {"type": "fixed", "name": name(), "size": size}, dice.randbytes(size)
    if kind == "enum":
        return {"type": "enum", "name": name(), "symbols": ["A", "B", "C"]}, dice.choice("ABC")
    if kind == "array":
        item = dice.choice(["null", "int", "string", "double"])
        make = {"null": lambda: None, "int": lambda: dice.randrange(99), "string": text, "double": lambda: 0.5}
        return {"type": "array", "items": item}, [make[item]() for _ in range(dice.randrange(4))]
    if kind == "map":
        return {"type": "map", "values": "string"}, {f"k{n}": text() for n in range(dice.randrange(4))}
    if kind == "union":
        schema, value = some(3)
        if schema == "null":
            schema, value = "int", 5
        return ["null", schema], dice.choice([None, value])
    fields = [some(depth + 1) for _ in range(dice.randrange(4))]
    schema = {
        "type": "record",
        "name": name(),
        "fields": [{"name": f"f{n}", "type": it} for n, (it, _) in enumerate(fields)],
    }
    return schema, {f"f{n}": it for n, (_, it) in enumerate(fields)}


def wanted():
    """A schema, a value of it, and the id that it is."""
    number, word = dice.randrange(-(2**63), 2**63), "id" + text()
    symbol, plain = dice.choice(["A", "B"]), uuid.UUID(int=dice.getrandbits(128))
    return dice.choice([
        ("string", word, word.encode()),
        ("bytes", word.encode(), word.encode()),
        ("long", number, str(number).encode()),
        (["null", "string"], word, word.encode()),
        (["null", "string"], None, b""),
        ({"type": "enum", "name": name(), "symbols": ["A", "B"]}, symbol, symbol.encode()),
        ({"type": "string", "logicalType": "uuid"}, str(plain), str(plain).encode()),
        ({"type": "fixed", "name": name(), "size": 4}, b"\0abc", b"\0abc"),
    ])


for _ in range(300):
    count = 0
    before = [some(0) for _ in range(dice.randrange(5))]
    schema, value, id = wanted()
    fields = before + [(schema, value), some(0)]
    inner = {
        "type": "record",
        "name": "Event",
        "namespace": "a.b",
        "fields": [{"name": f"f{n}", "type": it} for n, (it, _) in enumerate(fields)],
    }
    value = {f"f{n}": it for n, (_, it) in enumerate(fields)}
    pointer = f"/f{len(before)}"
    if dice.random() < 0.5:
        schema, first = some(1)
        value = {"first": first, "event": value}
        pointer = "/event" + pointer
        inner = {
            "type": "record",
            "name": "Outer",
            "fields": [{"name": "first", "type": schema}, {"name": "event", "type": ["null", inner]}],
        }
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(json.loads(json.dumps(inner))), value)
    print(json.dumps(inner, separators=(",", ":")), pointer, out.getvalue().hex(), id.hex(), sep="\t")
