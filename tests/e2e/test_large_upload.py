"""A file of 300 MB, by the unchanged @uppy/aws-s3, with a reload in the middle."""

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from jobplane.demo.memory import peak_megabytes
from tests.e2e.deployed import Deployed
from tests.e2e.uppy import Page

pytestmark = pytest.mark.e2e

MB, PART = 10**6, 8 * 1024**2


def content(size: int, seed: int) -> bytes:
    block = random.Random(seed).randbytes(10 * MB)
    return b"".join(block[n:] + block[:n] for n in range(size // len(block)))


async def hashed(deployed: Deployed, page: Page, key: str) -> Any:
    """The result of an assembly of the page's stored file."""
    file = page.stored(key)
    upload = {name: file[name] for name in ("key", "size", "mime", "md5hash")}
    payload = {"template_id": "tpl_fingerprint", "uploads": [upload | {"name": "film.mp4"}]}
    async with deployed.socket(page.user) as socket:
        end = await socket.run("process_assembly", payload)
    assert end["type"] == "complete", end
    return end["result"]["results"]["hashed"][0]


@pytest.mark.parametrize("way", ["companion", "sign"])
async def test_300_MB_with_a_reload_in_the_middle(
    deployed: Deployed, tmp_path: Path, way: str
) -> None:
    """A reload loses the part that was under way, and the worker's memory does not grow with the
    file.
    """
    worker = str(deployed.info["functions"]["processor"])
    small = Page(deployed, tmp_path, content(10 * MB, 1), PART)
    done, _ = small.upload(way)
    await hashed(deployed, small, done["key"])
    before = peak_megabytes(worker, deployed.pid)

    large = Page(deployed, tmp_path, content(300 * MB, 2), PART)
    stored, sent = large.upload(way, reload=18)
    assert sent == [*range(1, 18)]
    done, sent = large.upload(way, resume=stored)
    assert sent == [*range(18, 37)]
    result = await hashed(deployed, large, done["key"])
    assert result["meta"]["sha256"] == hashlib.sha256(large.content).hexdigest()
    after = peak_megabytes(worker, deployed.pid)
    if before is not None and after is not None:
        assert after - before < 30
