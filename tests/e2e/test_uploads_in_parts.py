"""Uploads in parts on a stage: by the unchanged @uppy/aws-s3, and on into an assembly."""

import hashlib
import os
from pathlib import Path

import httpx
import pytest

from tests.e2e.deployed import Deployed, unique
from tests.e2e.uppy import Page

pytestmark = pytest.mark.e2e

PART = 5 * 1024**2


@pytest.fixture
def page(deployed: Deployed, tmp_path: Path) -> Page:
    """A page with a file of two and a half parts."""
    return Page(deployed, tmp_path, os.urandom(PART * 5 // 2), PART)


@pytest.mark.parametrize("way", ["companion", "sign"])
async def test_uppy_goes_on_after_a_reload_and_the_file_becomes_an_assembly(
    deployed: Deployed, page: Page, way: str
) -> None:
    """The part that was under way is sent again, and no other; the object is not read for its md5,
    since its ETag is the announced digest.
    """
    stored, sent = page.upload(way, reload=2)
    assert sent == [1]
    done, sent = page.upload(way, resume=stored)
    assert (sent, done["key"]) == ([2, 3], stored["key"])

    file = page.stored(stored["key"])
    assert (file["size"], file["mime"], file["parts"]) == (len(page.content), "video/mp4", 3)
    assert file["md5hash"] == page.digest_of_parts()
    upload = {name: file[name] for name in ("key", "size", "mime", "md5hash")}
    payload = {"template_id": "tpl_fingerprint", "uploads": [upload | {"name": "film.mp4"}]}
    async with deployed.socket(page.user) as socket:
        end = await socket.run("process_assembly", payload)
    assert end["type"] == "complete", end
    (result,) = end["result"]["results"]["hashed"]
    assert result["meta"]["sha256"] == hashlib.sha256(page.content).hexdigest()


@pytest.mark.parametrize("way", ["companion", "sign"])
def test_uppy_sends_a_small_file_whole(page: Page, way: str) -> None:
    done, sent = page.upload(way, whole=True)
    file = page.stored(done["key"])
    assert (sent, file["parts"]) == ([], 0)
    assert file["md5hash"] == hashlib.md5(page.content, usedforsecurity=False).hexdigest()


def test_S3_refuses_a_part_with_another_md5(page: Page) -> None:
    upload = page.ask("POST", "/s3/multipart", json={})
    path = f"/s3/multipart/{upload['uploadId']}/1"
    digest = hashlib.md5(b"one", usedforsecurity=False).hexdigest()
    link = page.ask("GET", path, params={"key": upload["key"], "md5": digest})
    other = httpx.put(link["url"], content=b"two", headers=link["headers"], trust_env=False)
    assert (other.status_code, "BadDigest" in other.text) == (400, True)
    same = httpx.put(link["url"], content=b"one", headers=link["headers"], trust_env=False)
    assert same.status_code == 200


def test_another_user_can_not_reach_an_upload(page: Page, deployed: Deployed) -> None:
    upload = page.ask("POST", "/s3/multipart", json={})
    headers = {"Authorization": f"Bearer {deployed.token(unique('other'), 'acme')}"}
    for method, rest in (("GET", ""), ("GET", "/1"), ("DELETE", ""), ("POST", "/complete")):
        url = f"{deployed.http_url}/s3/multipart/{upload['uploadId']}{rest}"
        parts = {"parts": [{"PartNumber": 1, "ETag": "x"}]} if method == "POST" else None
        answer = httpx.request(
            method, url, params={"key": upload["key"]}, headers=headers, json=parts, trust_env=False
        )
        assert (answer.status_code, answer.json()["error"][:16]) == (404, "Upload not found")
