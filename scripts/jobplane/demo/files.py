"""The demo's input files, generated from a seed: the same bytes in each run."""

import csv
import hashlib
import io
import json
import random
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20_260_801
MEGABYTE = 1_000_000
CSV_ROWS = 25_000
MALFORMED_ROW = 8
IMAGE_SIZE = (960, 540)
WORDS = (
    "lease fence claim socket assembly robot batch stream progress résumé naïve Straße køkken "
    "señal żółw 作业 進捗 δρόμος путь שלום quietly before after while until the a of to with"
).split()


@dataclass(frozen=True)
class DemoFile:
    path: Path
    mime: str
    size: int
    md5: str
    sha256: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def announcement(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size, "mime": self.mime, "md5hash": self.md5}


def make_text(folder: Path) -> DemoFile:
    """A few pages of text in several scripts."""
    rng = random.Random(SEED)
    paragraphs = (" ".join(rng.choices(WORDS, k=90)).capitalize() + ".\n\n" for _ in range(400))
    return _write(folder / "letter.txt", "text/plain", (text.encode() for text in paragraphs))


def make_table(folder: Path) -> DemoFile:
    """A CSV of orders, with quotes, commas and line ends within fields."""
    return _write(folder / "orders.csv", "text/csv", _table(random.Random(SEED)))


def make_malformed_table(folder: Path) -> DemoFile:
    """A CSV with a cell too many in `MALFORMED_ROW`."""
    rows = (f"{number},{number * number}\n" for number in range(1, MALFORMED_ROW - 1))
    text = "".join(("number,square\n", *rows, "7,49,343\n"))
    return _write(folder / "malformed.csv", "text/csv", [text.encode()])


def make_image(folder: Path) -> DemoFile:
    """A PNG, written chunk by chunk."""
    return _write(folder / "waves.png", "image/png", _png(*IMAGE_SIZE))


def make_records(folder: Path, megabytes: int) -> DemoFile:
    """NDJSON of at least so many megabytes, in whole lines."""
    return _write(folder / "events.ndjson", "application/x-ndjson", _records(megabytes * MEGABYTE))


def expected_rows(table: DemoFile) -> str:
    """SHA-256 of the table as NDJSON, one object a row, converted without the robot's code."""
    digest = hashlib.sha256()
    with table.path.open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _write(path: Path, mime: str, chunks: Iterable[bytes]) -> DemoFile:
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with path.open("wb") as output:
        for chunk in chunks:
            output.write(chunk)
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
    return DemoFile(path, mime, size, md5.hexdigest(), sha256.hexdigest())


def _table(rng: random.Random) -> Iterator[bytes]:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["order", "customer", "city", "note", "amount"])
    for number in range(CSV_ROWS):
        first, second, city = rng.choices(WORDS, k=3)
        note = rng.choice([f'said "{first}", twice', f"{first};\n{second}", first, ""])
        customer = f"{second.title()}, {first.title()}"
        writer.writerow([number, customer, city, note, f"{rng.uniform(1, 9999):.2f}"])
    yield text.getvalue().encode()


def _png(width: int, height: int) -> Iterator[bytes]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    yield b"\x89PNG\r\n\x1a\n"
    # 8 bits a channel, RGB.
    yield chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    compressor = zlib.compressobj(6)
    for y in range(height):
        pixels = bytes(
            (x * x // 96 + shade * y * y // 96) & 0xFF for x in range(width) for shade in (1, 2, 3)
        )
        if data := compressor.compress(b"\0" + pixels):
            yield chunk(b"IDAT", data)
    yield chunk(b"IDAT", compressor.flush())
    yield chunk(b"IEND", b"")


def _records(size: int) -> Iterator[bytes]:
    """Lines with different numbers and texts, in chunks, of which one is in memory at a time."""
    rng = random.Random(SEED)
    endings = [
        json.dumps(
            {
                "user": f"user-{rng.randrange(10_000)}",
                "action": rng.choice(["opened", "edited", "shared", "closed"]),
                "tags": rng.sample(WORDS, 3),
                "text": " ".join(rng.choices(WORDS, k=28)),
                "score": round(rng.gauss(50, 15), 3),
            },
            ensure_ascii=False,
        )[1:]
        for _ in range(5_000)
    ]
    written = number = 0
    while written < size:
        lines = (f'{{"event": {number + offset}, {ending}' for offset, ending in enumerate(endings))
        chunk = ("\n".join(lines) + "\n").encode()
        if written + len(chunk) > size:
            chunk = chunk[: chunk.index(b"\n", size - written - 1) + 1]
        yield chunk
        written += len(chunk)
        number += len(endings)
