from __future__ import annotations

from pathlib import Path

import pytest

from messaging.demo import InputError, read_orders


def write(name: str, content: bytes) -> Path:
    path = Path(name)
    path.write_bytes(content)
    return path


def test_csv_rows_with_every_freedom_csv_has() -> None:
    path = write("good.csv", '\ufeffid,note\r\n1,"two\nlines, quoted ""twice"""\r\n\r\n2,ü\r\n'.encode())
    orders = read_orders(path, key="id")
    assert [dict(order.value) for order in orders] == [
        {"id": "1", "note": 'two\nlines, quoted "twice"'},
        {"id": "2", "note": "ü"},
    ]
    assert [(order.number, order.key, order.origin) for order in orders] == [
        (1, "1", "good.csv, line 2"),
        (2, "2", "good.csv, line 5"),
    ]


def test_jsonl_rows_keep_their_types() -> None:
    path = write("good.JSONL", b'{"id": 7, "tags": ["a"], "x": null}\n\n{"id": 7.5}\n')
    assert [order.value for order in read_orders(path)] == [{"id": 7, "tags": ["a"], "x": None}, {"id": 7.5}]
    assert [order.key for order in read_orders(path, key="id")] == ["7", "7.5"]


def test_limit_stops_reading() -> None:
    assert len(read_orders(write("long.csv", b"id\n1\n2\nbad,row\n"), limit=2)) == 2


@pytest.mark.parametrize(
    ("name", "content", "key", "text"),
    [
        ("a.csv", b"", None, "a.csv: holds no rows"),
        ("a.csv", b"id\n", None, "a.csv: holds no rows"),
        ("a.jsonl", b"\n \n", None, "a.jsonl: holds no rows"),
        ("a.csv", b"id,name\n1,x\n2\n", None, "a.csv, line 3: 1 fields, but the header names 2"),
        ("a.csv", b"id\n1,2\n", None, "a.csv, line 2: 2 fields, but the header names 1"),
        ("a.csv", b'id\n1\n"2\n3\n', None, "a.csv, line 3: not valid CSV"),
        ("a.csv", b"id,id\n1,2\n", None, "names column 'id' twice"),
        ("a.csv", b"id,\n1,2\n", None, "a column without a name"),
        ("a.csv", b"id\n1\n\xe9\n", None, "a.csv, line 3: byte 0xe9 is not UTF-8"),
        ("a.jsonl", b'{"a":1}\n{"a":\xff}\n', None, "a.jsonl, line 2: byte 0xff is not UTF-8"),
        ("a.jsonl", b'{"a":1}\n{"a":\n', None, "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b'{"a":' * 3000 + b"1" + b"}" * 3000, None, "a.jsonl, line 1: nested too deeply"),
        ("a.jsonl", b"[1]\n", None, "a.jsonl, line 1: a row must be a JSON object"),
        ("a.jsonl", b'{"a": NaN}\n', None, "a.jsonl, line 1: not valid JSON"),
        ("a.csv", b"id,name\n1,x\n", "nam", "line 2: there is no column 'nam'; columns: id, name"),
        ("a.jsonl", b'{"a":1}\n{"b":2}\n', "a", "line 2: there is no column 'a'; columns: b"),
        ("a.csv", b"id,name\n1,\n", "name", "line 2: column 'name' is empty"),
        ("a.jsonl", b'{"a":null}\n', "a", "line 1: column 'a' is empty"),
        ("a.jsonl", b'{"a":[1]}\n', "a", "line 1: column 'a' is a list"),
        ("a.csv", b"id\n" + b"x" * 300, "id", "line 2: column 'id' is 300 bytes, a key takes 255"),
        ("a.parquet", b"", None, "a.parquet: only .csv and .jsonl files can be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(name: str, content: bytes, key: str | None, text: str) -> None:
    with pytest.raises(InputError) as raised:
        read_orders(write(name, content), key)
    assert text in str(raised.value)


def test_a_file_that_cannot_be_opened() -> None:
    with pytest.raises(InputError, match=r"missing\.csv: cannot be read: No such file"):
        read_orders(Path("missing.csv"))
    Path("folder.csv").mkdir()
    with pytest.raises(InputError, match=r"folder\.csv: cannot be read: Is a directory"):
        read_orders(Path("folder.csv"))
