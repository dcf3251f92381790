"""The session of docs/protocol.md with curl, and what another user gets of it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.deployed import Deployed, unique
from tests.e2e.documented import ROOT, blocks

pytestmark = pytest.mark.e2e

# Bodies end without a line break.
CURL = 'curl() { command curl "$@"; local code=$?; echo; return $code; }\n'
# What the session does not print.
KEY = 'jq .key <<< "$upload" > key.json\n'


@dataclass(frozen=True)
class Session:
    """What the user has typed, and what it has left in a folder and printed."""

    user: str
    typed: str
    folder: Path
    printed: list[str]

    @property
    def document(self) -> dict[str, Any]:
        """The assembly of the first job."""
        found: dict[str, Any] = json.loads((self.folder / "job.json").read_text())["result"]
        return found


@pytest.fixture(scope="module")
def session(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Typed once, on the stage."""
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    (typed,) = [block for block in blocks(text) if block.startswith("auth=")]
    user, folder = unique("curl"), tmp_path_factory.mktemp("session")
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", CURL + typed + KEY],
        cwd=folder,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "NO_PROXY": "*",
            "JOBPLANE_URL": deployed.http_url,
            "JOBPLANE_TOKEN": deployed.token(user, "acme"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return Session(user, typed, folder, [line for line in run.stdout.splitlines() if line])


def test_the_documented_session_prints_what_it_says(session: Session) -> None:
    """From an upload to the result, without a socket; a job is cancelled, and run once more."""
    lines = session.typed.splitlines()
    answers = [line.removeprefix("# ") for line in lines if line.startswith(("# {", "# ["))]
    assert session.printed == answers
    assert (session.folder / "result").stat().st_size > 0


@pytest.mark.parametrize("tenant", ["acme", "elsewhere"])
async def test_another_user_gets_nothing_of_the_session(
    deployed: Deployed, session: Session, tenant: str
) -> None:
    """Neither a colleague nor one of another tenant, who may read that tenant's jobs."""
    job, document = "nightly-1", session.document
    asm = document["assembly_id"]
    token = deployed.token(
        unique("stranger"), tenant, *(["tenant:read"] if tenant != "acme" else [])
    )
    bearer = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=deployed.http_url, headers=bearer, trust_env=False, timeout=60
    ) as http:
        for method, path, status in (
            ("GET", f"/jobs/{job}", 404),
            ("GET", f"/jobs/{job}?since_event=0", 404),
            ("GET", f"/jobs/{job}?user_id={session.user}", 403 if tenant == "acme" else 404),
            ("POST", f"/jobs/{job}/cancel", 404),
            ("POST", f"/jobs/{job}/replay", 404),
            ("GET", f"/status/{asm}", 403),
            ("GET", f"/status?assemblyId={asm}&triggerWebhook=true", 403),
        ):
            answer = await http.request(method, path)
            assert answer.status_code == status, (method, path)
            assert not {"status", "results", "uploads", "events"} & answer.json().keys()
        assert (await http.get("/jobs")).json()["jobs"] == []
        assert (await http.get("/assemblies")).json()["assemblies"] == []
        batch = await http.post("/status/batch", json={"assemblyIds": [asm]})
        assert batch.json()["statuses"] == {asm: None}
        (upload,) = document["uploads"]
        file = {name: upload[name] for name in ("name", "size", "mime", "md5hash")}
        asked = {"template_id": document["template_id"], "files": [file]}
        own = (await http.post("/uploads", json=asked)).json()
        assert (own["completed"], own["assembly_id"] == asm) == (False, False)
        key = json.loads((session.folder / "key.json").read_text())
        payload = {"template_id": document["template_id"], "uploads": [file | {"key": key}]}
        stolen = await http.post("/jobs", json={"action": "process_assembly", "payload": payload})
        assert (stolen.status_code, stolen.json()["code"]) == (403, "FORBIDDEN")
