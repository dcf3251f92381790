"""A page that uploads a file with the unchanged @uppy/aws-s3; see `uppy_upload.mjs`."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.deployed import Deployed, unique

PROGRAM = Path(__file__).with_name("uppy_upload.mjs")


class Page:
    """A page of a new user; it ends with each upload, and the next one is after a reload."""

    def __init__(self, deployed: Deployed, folder: Path, content: bytes, part: int) -> None:
        self.content, self.part, self.user = content, part, unique("uploader")
        self._file = folder / "film.mp4"
        self._file.write_bytes(content)
        self._api = deployed.http_url
        self._token = deployed.token(self.user, "acme")

    def upload(self, way: str, **options: Any) -> tuple[Any, list[int]]:
        """What the page had stored last, or the plugin's result; and the numbers of sent parts."""
        given = {
            "api": self._api, "token": self._token, "file": str(self._file), "name": "film.mp4",
            "type": "video/mp4", "way": way, "chunk": self.part, "md5": True,
        }  # fmt: skip
        command = ["node", str(PROGRAM), json.dumps(given | options)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert not any("error" in line for line in lines), done.stdout + done.stderr
        last = next(line for line in reversed(lines) if "sent" not in line)
        return last.get("done") or last["stored"], [
            line["sent"] for line in lines if "sent" in line
        ]

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """The answer of the API to the page's user."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = self._api + path
        answer = httpx.request(method, url, headers=headers, trust_env=False, **request)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stored(self, key: str) -> Any:
        """What process_assembly needs to know of the stored file."""
        return self.ask("GET", "/s3/upload", params={"key": key})

    def digest_of_parts(self) -> str:
        """The digest of the parts, as S3 makes it."""
        parts = range(0, len(self.content), self.part)
        digests = [_md5(self.content[start : start + self.part]) for start in parts]
        return _md5(b"".join(digests)).hex()


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
