"""The robots on text: `/text/ndjson`, `/csv/to-ndjson`, `/ndjson/to-csv`."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobplane_robots import MalformedInputError, MemorySink, RobotInput, RobotResult, get_robot


def run(
    name: str, data: bytes, file_name: str = "data.txt", **options: Any
) -> tuple[RobotResult, MemorySink]:
    sink = MemorySink()
    source = RobotInput(file_name, lambda: io.BytesIO(data), len(data), mime="text/plain")
    return get_robot(name).run(source, options, sink), sink


def fault(name: str, data: bytes, **options: Any) -> str:
    """The message of the error that the file must cause."""
    with pytest.raises(MalformedInputError) as caught:
        run(name, data, **options)
    return caught.value.message


def values(sink: MemorySink) -> list[Any]:
    return [json.loads(line) for line in sink.files[0].data.splitlines()]


@pytest.mark.parametrize(
    ("data", "lines", "valid", "blank"),
    [
        (b"", 0, 0, 0),
        (b'{"a":1}\n', 1, 1, 0),
        (b'{"a":1}', 1, 1, 0),
        (b"1\r\n2\r\n", 2, 2, 0),
        (b"\xef\xbb\xbf1\n2\n", 2, 2, 0),
        (b"\xef\xbb\xbf", 0, 0, 0),
        (b"1\n\n \t\r\n2\n\n", 5, 2, 3),
        (b"\n", 1, 0, 1),
        (b'  {"a": 1}  \n', 1, 1, 0),
        ('"\u2028 \u0085 é"\n'.encode(), 1, 1, 0),
        (b"1" * 5000 + b"\n", 1, 1, 0),
        (b'[1,{"a":[null,true,false,1.5e400,"\\ud83d\\ude00"]}]\n', 1, 1, 0),
    ],
)
def test_ndjson_counts_a_files_lines(data: bytes, lines: int, valid: int, blank: int) -> None:
    """BOM, CRLF, blank lines and a missing last line end are allowed."""
    result, sink = run("/text/ndjson", data)
    counts = {"lines": lines, "valid": valid, "invalid": 0, "blank": blank}
    assert result.counts == counts
    assert sink.files[0].forwarded is not None
    assert sink.files[0].meta == {**counts, "bad_lines": []}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            b'{"a":1',
            "is not JSON (column 7: expected a comma or the closing bracket, found the e",
        ),
        (b'  {"a" 1}', "is not JSON (column 8: expected a colon after the key, found '1'"),
        (b"1 2", "is not JSON (column 3: expected the end of the line after the value, found '2'"),
        (b"[1,2", "is not JSON"),
        (b"{'a':1}", "is not JSON"),
        (b"[1,]", "is not JSON (column 3: a comma must not stand before"),
        (rb'"\x"', "is not JSON (column 2: after a backslash only one of"),
        (rb'"\u12"', "is not JSON (column 3: expected four hex digits"),
        (b"{1:2}", "is not JSON (column 2: expected a key in double quotes, found '1'"),
        (b"abc", "is not JSON (column 1: expected a value, found 'a'"),
        (b'"abc', "is not JSON (column 1: the string is not closed"),
        (b"NaN", "is not JSON (NaN is not a JSON number)"),
        (b"[-Infinity]", "is not JSON (-Infinity is not a JSON number)"),
        (b"1\r2", "is not JSON"),
        (b'"a\r', "is not JSON"),
        (b'"tab\there"', r"is not JSON (column 5: the character '\t' must be escaped in a string"),
        (b'"\xff"', "is not UTF-8 (byte 2 of the line is 0xFF)"),
        (b'"\xed\xa0\x80"', "is not UTF-8"),
        (b"\xef\xbb\xbf1", "is not JSON"),
        (b"[" * 200_000, "is nested too deeply"),
        (b"\x00", "is not JSON"),
    ],
)
def test_ndjson_fails_at_the_first_bad_line(line: bytes, reason: str) -> None:
    message = fault("/text/ndjson", b'{"ok":1}\n\n' + line + b"\nalso bad\n")
    assert message.startswith(f"data.txt, line 3: {reason}")


def test_ndjson_reports_bad_lines_and_passes_the_file() -> None:
    data = b"1\nx\n2\n\xff\ny\n"
    result, sink = run("/text/ndjson", data, on_error="report", max_reported=2)
    assert result.counts == {"lines": 5, "valid": 2, "invalid": 3, "blank": 0}
    assert [bad["line"] for bad in result.meta["bad_lines"]] == [2, 4]
    assert sink.files[0].forwarded is not None
    told = "data.txt: 3 lines are not valid; the first, line 2, is not JSON"
    assert result.warnings[0].startswith(told)


def test_ndjson_drops_bad_lines() -> None:
    data = b'\xef\xbb\xbf{"b": 1.10}\r\nbad\r\n\r\n{"\xc3\xa9":2}'
    result, sink = run("/text/ndjson", data, "données.ndjson", on_error="drop")
    assert sink.files[0].data == '{"b": 1.10}\n{"é":2}\n'.encode()
    assert sink.files[0].name == "données.ndjson"
    assert sink.files[0].meta["invalid"] == result.counts["invalid"] == 1


@pytest.mark.parametrize("size", [101, 300_000, 900_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_above_the_limit_is_one_bad_line(size: int, end: bytes) -> None:
    huge = b'"' + b"x" * (size - 2) + b'"'
    data = b"1\n" + huge + end
    limit = size - 1
    told = fault("/text/ndjson", data, max_line_bytes=limit)
    assert f"line 2: is longer than {limit} bytes" in told
    assert run("/text/ndjson", data, max_line_bytes=size)[0].counts["valid"] == 2
    if end:
        result, sink = run("/text/ndjson", data + b"3\n", on_error="drop", max_line_bytes=limit)
        assert sink.files[0].data == b"1\n3\n"
        assert result.meta["bad_lines"][0]["line"] == 2


@given(
    st.lists(
        st.sampled_from([b'{"a":1}', b"x", b"", b"\xff", b'"' + b"y" * 50 + b'"', b" 1 "]),
        max_size=30,
    ),
    st.sampled_from([b"\n", b"\r\n"]),
    st.integers(1, 60),
)
def test_ndjson_by_blocks_equals_line_by_line(lines: list[bytes], end: bytes, limit: int) -> None:
    def good(line: bytes) -> bool:
        try:
            json.loads(line.decode())
        except ValueError:
            return False
        return len(line) <= limit

    data = end.join([*lines, b""])
    result, sink = run("/text/ndjson", data, on_error="drop", max_line_bytes=limit)
    assert result.counts["lines"] == len(lines)
    assert values(sink) == [json.loads(line) for line in lines if good(line)]


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b"a,b\n1,2\n", {}, [{"a": "1", "b": "2"}]),
        (b"a,b\r\n1,2", {}, [{"a": "1", "b": "2"}]),
        (b'a,b\n"x\r\ny","q""q"\n', {}, [{"a": "x\r\ny", "b": 'q"q'}]),
        (b"\xef\xbb\xbfa\n1\n", {}, [{"a": "1"}]),
        (b"\n\na\n\n1\n\n", {}, [{"a": "1"}]),
        (b"a;b\n1;2\n", {"delimiter": ";"}, [{"a": "1", "b": "2"}]),
        (b"1\t2\n", {"delimiter": "\t", "header": False, "columns": ["x", "y"]},
         [{"x": "1", "y": "2"}]),
        (b"a\n1\n", {"columns": ["renamed"]}, [{"renamed": "1"}]),
        (b"100%,%s\n1,2\n", {}, [{"100%": "1", "%s": "2"}]),
        ("naïve\né\n".encode("utf-16"), {"encoding": "utf-16"}, [{"naïve": "é"}]),
        ("a\né€\n".encode("cp1252"), {"encoding": "windows-1252"}, [{"a": "é€"}]),
        ("a\n日本\n".encode("shift_jis"), {"encoding": "shift_jis"}, [{"a": "日本"}]),
        ("a\n\u2028\x0c\x85\n".encode(), {}, [{"a": "\u2028\x0c\x85"}]),
        (b"a\n\x00\n", {}, [{"a": "\x00"}]),
        (b'a\n""\n', {}, [{"a": ""}]),
        (b"a,b\n", {}, []),
    ],
)  # fmt: skip
def test_csv_rows_become_objects(data: bytes, options: Any, expected: Any) -> None:
    result, sink = run("/csv/to-ndjson", data, "table.csv", **options)
    assert [json.loads(line) for line in sink.files[0].data.decode().split("\n")[:-1]] == expected
    assert (sink.files[0].name, sink.files[0].mime) == ("table.ndjson", "application/x-ndjson")
    assert result.counts == {"rows": len(expected), "dropped": 0}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"a,b\n1,2\n1\n", {}, "row 3, line 3: has 1 fields, but there are 2 columns"),
        (b'a,b\n"x\ny",2\n1\n', {}, "row 3, line 4: has 1 fields"),
        (b"a\n1,2\n", {}, "row 2, line 2: has 2 fields"),
        (
            b'a\n"x"y\n',
            {},
            "row 2, line 2, column 4: has text after a closing",
        ),
        (b"a\nx\ry\n", {}, "row 2, line 2, column 2: has a carriage return outside"),
        (b'a\n1\n"x\ny\n', {}, "row 3, line 3, column 1: a quote is opened and never closed"),
        (b"a,a\n", {}, "row 1, line 1: header: column 'a' appears twice; the option columns"),
        (b"a,\n", {}, "row 1, line 1: header: column 2 has no name"),
        (b'"a\n', {}, "row 1, line 1, column 1: header: a quote is opened and never"),
        (b"a\n1\n\xff\n", {}, "row 3, line 3, column 1: is not utf-8 text"),
        (b"a\n\xc3", {}, "row 2, line 2, column 1: is not utf-8 text"),
        (b"a\n12345\n", {"max_field_length": 4}, "row 2, line 2: has a field longer than 4"),
        (b"a\n12345\n", {"max_row_length": 4}, "row 2, line 2: is longer than 4 characters"),
        (b'a\n"1\n2\n3\n4\n', {"max_row_length": 4}, "row 2, line 2, column 1: is longer than 4"),
        (b'a,b\n1,"x\ny"z\n', {}, "row 2, line 2, column 3: the quote that is opened here"),
        (b'a,b\n"x\ny","z\n\n', {}, "row 2, line 3, column 4: a quote is opened and never"),
    ],
)
def test_a_csv_fault_has_row_and_line(data: bytes, options: dict[str, Any], message: str) -> None:
    """Rows count as in a spreadsheet, with the header; lines as in an editor."""
    assert fault("/csv/to-ndjson", data, **options).startswith(f"data.txt, {message}")


def table(data: bytes, **options: Any) -> tuple[list[Any], tuple[str, ...], list[Any]]:
    """The rows of a CSV file, the warnings and the bad rows."""
    result, sink = run("/csv/to-ndjson", data, "t.csv", **options)
    rows = [json.loads(line) for line in sink.files[0].data.decode().split("\n")[:-1]]
    return rows, result.warnings, list(result.meta["bad_rows"])


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoted", ["x", '"x,;|\t y"', '"x""\r\n\ny"'])
def test_separator_and_line_ends_are_found(separator: str, end: str, quoted: str) -> None:
    """Decimal commas, and separators and line ends inside quotes, don't mislead."""
    lines = [f"k{separator}v", f"{quoted}{separator}1.5", f"y{separator}", "", f"{separator}z"]
    text = end.join([*lines, ""])
    rows, warnings, _ = table(text.encode())
    cell = next(csv.reader(io.StringIO(quoted, newline="")))
    inside = quoted.strip('"').replace('""', '"') if quoted[0] == '"' else cell[0]
    assert [tuple(row.values()) for row in rows] == [(inside, "1.5"), ("y", ""), ("", "z")]
    assert len(warnings) == (separator != ",")
    rows, warnings, _ = table(f"sep={separator}{end}{text}".encode())
    assert (len(rows), warnings) == (3, ())


@pytest.mark.parametrize(
    ("text", "options", "first", "warning"),
    [
        ("a;b\n1,5;2,5\n", {}, {"a": "1,5", "b": "2,5"}, "separated by a semicolon"),
        ("id,tags\n1,x;y\n2,x;y\n", {}, {"id": "1", "tags": "x;y"}, ""),
        ("text\na;b\nc;d\n", {}, {"text": "a;b"}, ""),
        ("a;b\n1;2\n", {"delimiter": ","}, {"a;b": "1;2"}, "if a semicolon separates its fields"),
        ("1;2\n3;4\n", {"header": False, "columns": ["a", "b"]}, {"a": "1", "b": "2"}, "semicolon"),
        ("a|b\nbad\n1|2\n3|4\n", {"on_error": "drop"}, {"a": "1", "b": "2"}, "a vertical bar"),
        ('"sep=;"\na;b\n1;2\n', {}, {"a": "1", "b": "2"}, ""),
        ("sep=;\na,b\n1,2\n", {"delimiter": ","}, {"a": "1", "b": "2"}, "names a semicolon"),
    ],
)
def test_a_look_decides_only_what_is_plain(
    text: str, options: Any, first: Any, warning: str
) -> None:
    rows, warnings, _ = table(text.encode(), **options)
    assert rows[0] == first
    assert warning in " ".join(warnings) and bool(warning) == bool(warnings)


@pytest.mark.parametrize(
    ("text", "codec", "encoding"),
    [
        ("①髙﨑,㈱～", "cp932", "cp932"),
        ("①髙﨑,㈱～", "cp932", "shift_jis"),
        ("똠방각하,펲", "cp949", "cp949"),
        ("똠방각하,펲", "cp949", "euc-kr"),
        ("€碁銹,裏", "cp950", "cp950"),
        ("碁銹,裏", "cp950", "big5"),
        ("朱镕基,€", "gb18030", "gbk"),
        ("Ünï,é", "mac_roman", "macintosh"),
        ("żółć,ą", "cp1250", "windows-1250"),
        ("Ünï,日本", "utf-16", "utf-8"),
        ("Ünï,é", "utf-16-le", "utf-8"),
        ("Ünï,é", "utf-16-be", "windows-1252"),
        ("日本,東京都", "utf-16-le", "utf-16"),
        ("日本,東京都", "utf-16-be", "utf-16"),
        ("日本,東京都", "utf-16-be", "utf-16-be"),
        ("\ufeffÜnï,é", "utf-8", "windows-1252"),
    ],
)
def test_code_pages_and_utf_16_are_read(text: str, codec: str, encoding: str) -> None:
    """What the first bytes prove wins over the option, with a warning."""
    rows, warnings, _ = table(f"{text}\r\n{text}\r\n".lstrip().encode(codec), encoding=encoding)
    names = text.lstrip("\ufeff").split(",")
    assert [name.lstrip("\ufeff") for name in rows[0]] == names
    surprise = codec.startswith("utf") and not codec.startswith(encoding)
    assert [w for w in warnings if f"text, not {encoding}" in w] == list(warnings)
    assert bool(warnings) == surprise


@pytest.mark.parametrize(
    ("bad", "options"),
    [
        (b"1,\xff", {}),
        (b'1,"x', {}),
        (b'1,"x', {"max_row_length": 1000}),
        (b'"1,x', {}),
        (b'1,"x"y', {}),
        (b"1,2,3", {}),
        (b"1," + b"x" * 2000, {"max_row_length": 1000}),
        (b"1," + b"x" * 600_000, {"max_row_length": 1000}),
        (b"1," + b"x" * 60, {"max_field_length": 50}),
        (b"1,\x81", {"encoding": "cp932"}),
    ],
)
@pytest.mark.parametrize("after", [1, 3_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_one_bad_line_costs_one_line(bad: bytes, options: Any, after: int, end: bytes) -> None:
    """Also a quote that stays open until another one, the longest row or the end of the file."""
    good = b'1,"2"'
    data = end.join([b"a,b", good, bad, *[b"1,2"] * after, good, b""])
    rows, _, faults = table(data, on_error="drop", **options)
    assert len(rows) == after + 2
    assert [(fault["row"], fault["line"]) for fault in faults] == [(3, 3)]


def test_a_bad_unit_of_utf_16_costs_one_line() -> None:
    data = "a\n1\n".encode("utf-16") + b"\x00\xd8" + "\n2\n".encode("utf-16-le")
    rows, _, faults = table(data, on_error="drop")
    assert rows == [{"a": "1"}, {"a": "2"}]
    assert faults[0]["line"] == 3


def test_a_broken_row_of_several_lines_gives_no_halves() -> None:
    """A line that has a quote in the middle of a field was a part of the row before it."""
    rows, _, faults = table(b'a,b\n1,"x\ny"z",2\n3,4\n', on_error="drop")
    assert rows == [{"a": "3", "b": "4"}]
    assert [fault["line"] for fault in faults] == [2, 3]


def test_quotes_that_are_never_closed_cannot_take_quadratic_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jobplane_robots._csv.MAX_REREAD", 1_000_000)
    with pytest.raises(MalformedInputError, match="has too many quotes that are not closed"):
        table(b'a,b\n1,"\n' + b'x","\n' * 6_000, on_error="drop")


@given(
    st.text(st.sampled_from('",;\r\nabé\ufeff\0'), max_size=40),
    st.sampled_from(["utf-8", "utf-16", "utf-16-be", "cp1252"]),
    st.sampled_from(["utf-8", "utf-16", "cp932"]),
    st.integers(1, 40),
)
def test_any_file_gives_rows_or_a_named_fault(
    text: str, codec: str, encoding: str, limit: int
) -> None:
    """With names of its own, every line is a row or a bad row."""
    data = text.encode(codec, "replace")
    names = {"columns": ["a", "b"], "header": False, "encoding": encoding}
    rows, _, faults = table(data, **names, on_error="drop", max_row_length=limit, max_reported=99)
    assert len(rows) + len(faults) <= data.count(b"\n") + data.count(b"\r") + 1
    try:
        table(data, encoding=encoding, max_field_length=limit)
    except MalformedInputError as error:
        assert error.where["row"] >= 1


def test_lines_that_end_in_cr_are_lines_of_ndjson_too() -> None:
    assert run("/text/ndjson", b'{"a":1}\r2\r', on_error="drop")[0].counts["valid"] == 2
    _, sink = run("/ndjson/to-csv", b'{"a":1}\r{"a":2}')
    assert sink.files[0].data == b"a\r\n1\r\n2\r\n"


def test_an_empty_key_costs_its_line_only() -> None:
    result, sink = run("/ndjson/to-csv", b'{"":1}\n{"a":2}\n', on_error="drop")
    assert (sink.files[0].data, result.counts["dropped"]) == (b"a\r\n2\r\n", 1)


def test_csv_drops_bad_rows() -> None:
    data = b'a,b\n1,2\nonly\n"x"y,2\n"3","4"\n'
    result, sink = run("/csv/to-ndjson", data, on_error="drop", max_reported=1)
    assert values(sink) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert result.counts == {"rows": 2, "dropped": 2}
    assert [bad["row"] for bad in result.meta["bad_rows"]] == [3]
    assert "2 rows were left out; the first, row 3, line 3, has 1 fields" in result.warnings[0]


def test_csv_without_rows_is_a_warning() -> None:
    result, sink = run("/csv/to-ndjson", b"")
    assert (sink.files[0].data, result.warnings) == (b"", ("data.txt: the file has no rows",))


def test_csv_fields_may_be_longer_than_131072_characters() -> None:
    """The default limit of Python's csv module."""
    _, sink = run("/csv/to-ndjson", b"a\n" + b"x" * 500_000 + b"\n")
    assert len(values(sink)[0]["a"]) == 500_000


@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        (b'{"a":1,"b":"x"}\n{"b":"y"}\n', {}, "a,b\r\n1,x\r\n,y\r\n"),
        (b'{"b":1}\n{"a":2}\n', {}, "b,a\r\n1,\r\n,2\r\n"),
        (b'{"a":1.10,"b":-0,"c":1e400}', {}, "a,b,c\r\n1.10,-0,1e400\r\n"),
        (b'{"a":null,"b":true,"c":false}', {}, "a,b,c\r\n,true,false\r\n"),
        (b'{"a":{"x":[1.50,null,"q\\"",true]}}', {},
         'a\r\n"{""x"":[1.50,null,""q\\"""",true]}"\r\n'),
        (b'{"a":"x,y","b":"l1\\nl2","c":"\\r"}', {}, 'a,b,c\r\n"x,y","l1\nl2","\r"\r\n'),
        (b'{"a":1,"b":2}', {"columns": ["b", "a", "z"]}, "b,a,z\r\n2,1,\r\n"),
        (b'{"a":1,"b":2}', {"columns": ["b"], "unknown_keys": "ignore"}, "b\r\n2\r\n"),
        (b'{"a":1,"b":2}', {"header": False, "delimiter": ";"}, "1;2\r\n"),
        (b'{"a":1}', {"bom": True}, "\ufeffa\r\n1\r\n"),
        (b'{"a":"\\ud83d\\ude00"}', {}, "a\r\n😀\r\n"),
        (b"", {"columns": ["a"]}, "a\r\n"),
        (b"\n\n", {}, ""),
        (b'{"a":null}', {}, 'a\r\n""\r\n'),
    ],
)  # fmt: skip
def test_objects_become_csv_rows(data: bytes, options: dict[str, Any], expected: str) -> None:
    """Numbers as written, nested values as JSON, null as empty; CRLF."""
    _, sink = run("/ndjson/to-csv", data, "rows.ndjson", **options)
    assert sink.files[0].data.decode() == expected
    assert (sink.files[0].name, sink.files[0].mime) == ("rows.csv", "text/csv")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b'{"a":1}\n[1]\n', {}, "line 2: is not a JSON object"),
        (b'{"a":1}\n{"a":\n', {}, "line 2: is not JSON"),
        (b'{"a":1}\n{"z":1,"y":1}\n', {"sample_rows": 1},
         "line 2: has keys without a column: 'z', 'y'"),
        (b'{"a":1}\n', {"columns": ["b"]}, "line 1: has keys without a column: 'a'"),
        (b'{"a":"\\ud800"}\n', {}, "line 1: has half of a surrogate pair"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", {}, "line 1: is nested too deeply"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, {}, "line 1: is nested too deeply"),
        (b'{"":1}\n', {}, "line 1: has a key without a name"),
        (b"{}\n{}\n", {}, "there are no columns in its first 2 lines"),
        (b'{"a":"12345"}\n', {"max_line_bytes": 5}, "line 1: is longer than 5 bytes"),
    ],
)  # fmt: skip
def test_a_refused_line_is_named_by_its_number(data: bytes, options: Any, message: str) -> None:
    text = fault("/ndjson/to-csv", data, **options)
    assert text.startswith("data.txt") and message in text


def test_lines_that_are_not_rows_can_be_dropped() -> None:
    data = b'{"a":1}\nx\n[]\n{"b":1}\n{"a":2}\n'
    result, sink = run("/ndjson/to-csv", data, on_error="drop", sample_rows=1)
    assert sink.files[0].data == b"a\r\n1\r\n2\r\n"
    assert result.counts == {"rows": 2, "dropped": 3, "ignored_values": 0}
    assert [bad["line"] for bad in result.meta["bad_lines"]] == [2, 3, 4]


def test_columns_come_from_the_first_megabyte() -> None:
    """A key that comes later has no column."""
    long = b'{"a":"' + b"x" * 600_000 + b'"}\n'
    told = fault("/ndjson/to-csv", long * 2 + b'{"b":1}\n', sample_rows=100)
    assert "line 3" in told
    assert "'b'" in told


def test_values_without_a_column_can_be_ignored_and_are_counted() -> None:
    data = b'{"a":1}\n{"a":2,"b":3,"c":4}\n'
    result, _ = run("/ndjson/to-csv", data, sample_rows=1, unknown_keys="ignore")
    assert result.counts["ignored_values"] == 2
    assert "2 values without a column were left out" in result.warnings[0]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_formulas_get_a_quote_on_request(start: str) -> None:
    data = json.dumps({f"{start}h": f"{start}1+1", "n": -5}).encode()
    for escaped, quote in ((True, "'"), (False, "")):
        _, sink = run("/ndjson/to-csv", data, escape_formulas=escaped)
        rows = list(csv.reader(io.StringIO(sink.files[0].data.decode(), newline="")))
        assert rows == [[f"{quote}{start}h", "n"], [f"{quote}{start}1+1", "-5"]]


text = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\r\n;%\ufeff'))


@given(
    st.lists(text.filter(bool), min_size=1, max_size=4, unique=True).flatmap(
        lambda names: st.tuples(
            st.just(names), st.lists(st.fixed_dictionaries({n: text for n in names}), max_size=5)
        )
    ),
    st.sampled_from([",", ";", "\t", "|"]),
)
def test_objects_of_strings_to_csv_and_back_are_equal(
    table: tuple[list[str], list[dict[str, str]]], delimiter: str
) -> None:
    columns, rows = table
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    # With a BOM in front, a first column that begins with U+FEFF keeps it.
    _, there = run(
        "/ndjson/to-csv", data, columns=columns, delimiter=delimiter, bom=True, header=True
    )
    _, back = run("/csv/to-ndjson", there.files[0].data, delimiter=delimiter)
    lines = back.files[0].data.decode().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == rows
