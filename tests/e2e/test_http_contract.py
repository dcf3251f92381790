"""The HTTP API's answers match contracts/openapi.json."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import settings
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method

from jobplane_keys import iso_time, owner_key
from tests.e2e.deployed import Deployed

pytestmark = pytest.mark.e2e

OPENAPI = Path(__file__).resolve().parents[2] / "contracts" / "openapi.json"
USER, TENANT = "contract-user", "contract-tenant"
ENDED, FAILED, RUNNING, WAITING = (
    f"contract-{state}" for state in ("ended", "failed", "running", "waiting")
)
FOREIGN, ABSENT = "contract-foreign", "contract-absent"
KNOWN = (ENDED, FAILED, RUNNING, WAITING, FOREIGN, ABSENT)
EXAMPLES = 40


def with_examples() -> dict[str, Any]:
    """The published document, with assemblies as examples that are there when it is tried."""
    document: dict[str, Any] = json.loads(OPENAPI.read_text())
    examples = {name: {"value": name} for name in KNOWN}
    for path in ("/status", "/status/{assembly_id}"):
        document["paths"][path]["get"]["parameters"][0]["examples"] = examples
    body = document["paths"]["/status/batch"]["post"]["requestBody"]["content"]["application/json"]
    body["examples"] = {"all": {"value": {"assemblyIds": list(KNOWN)}}}
    return document


generation = GenerationConfig(
    deterministic=True,
    max_examples=EXAMPLES,
    database="none",
    allow_extra_parameters=False,  # most paths ignore one that is not known
)
# A list of too many files may be too large to be read.
refusing = {"expected-statuses": ["400", "401", "404", "413"]}
checks = ChecksConfig.from_dict({"negative_data_rejection": refusing})
projects = ProjectsConfig(default=ProjectConfig(generation=generation, checks=checks))
api = schemathesis.openapi.from_dict(with_examples(), config=SchemathesisConfig(projects=projects))


def row(assembly_id: str, user: str = USER, **fields: Any) -> dict[str, Any]:
    """The stored row of an assembly."""
    now = time.time()
    whose = {"owner": owner_key(TENANT, user), "user": {"userId": user}, "user_id": user}
    about = {"tenant_id": TENANT, "template_id": "tpl_fingerprint", "branch": "main"}
    content: dict[str, Any] = {"message": "Waiting for files", "uploads": [], "results": {}}
    times = {"created_at": iso_time(now), "updated_at": iso_time(now), "ttl": int(now) + 3600}
    sizes = dict.fromkeys(("bytes_expected", "bytes_received", "bytes_usage"), 1)
    counts = {"execution": 1, "rev": 1, **sizes}
    return {"assembly_id": assembly_id, **whose, **about, **content, **times, **counts, **fields}


def rows() -> list[dict[str, Any]]:
    """An assembly in each state, and one of another user."""
    file = {
        "id": "upload_1", "name": "a.txt", "basename": "a", "ext": "txt", "size": 1,
        "mime": "text/plain", "field": "file", "md5hash": "0cc175b9c0f1b6a831c399e269772661",
    }  # fmt: skip
    result = file | {"id": "result_1", "original_id": "upload_1", "key": "results/x/hashed/a.txt"}
    files: dict[str, Any] = {"uploads": [file], "results": {"hashed": [result]}}
    return [
        row(ENDED, ok="ASSEMBLY_COMPLETED", **files),
        row(FAILED, error="MD5_MISMATCH", uploads=[file]),
        row(RUNNING, execution_start=iso_time(time.time()), current_step="hashed", progress_pct=40),
        row(WAITING),
        row(FOREIGN, user="contract-other"),
    ]


@pytest.fixture(scope="module", autouse=True)
def assemblies(deployed: Deployed) -> Iterator[None]:
    """The assemblies, as long as this module's tests run."""
    for each in rows():
        deployed.put("assemblies", each)
    yield
    for each in rows():
        deployed.delete("assemblies", assembly_id=each["assembly_id"])


@pytest.fixture(scope="module")
def authorized(deployed: Deployed) -> dict[str, str]:
    """The headers of a caller with a good token."""
    return {"Authorization": f"Bearer {deployed.token(USER, TENANT)}"}


@api.parametrize()
@settings(deadline=None)
def test_generated_requests_get_described_answers(
    case: "schemathesis.Case[Any]", deployed: Deployed, authorized: dict[str, str]
) -> None:
    """Valid and invalid ones: status, headers and body."""
    # API Gateway answers 404 for a method without a route. No schema says which tokens are real,
    # which actions and templates there are, and that `from` is before `to`.
    query = case.query or {}
    is_named = case.operation.label in {"POST /jobs", "POST /uploads"}
    made_up = is_named or "next" in query or {"from", "to"} <= query.keys()
    case.call_and_validate(
        base_url=deployed.http_url,
        headers=authorized,
        excluded_checks=[unsupported_method, *([positive_data_acceptance] if made_up else [])],
        timeout=30,
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((f"/status/{known}", 200) for known in (ENDED, FAILED, RUNNING, WAITING)),
        (f"/status/{FOREIGN}", 403),
        (f"/status/{ABSENT}", 404),
        ("/status/a.b", 400),
        (f"/status/{RUNNING}?triggerWebhook=true", 409),
        (f"/status?assemblyId={ENDED}", 200),
        (f"/status?assemblyId={FOREIGN}", 403),
        (f"/status?assemblyId={ABSENT}", 404),
        ("/status", 400),
        ("/assemblies", 200),
        ("/assemblies?limit=2", 200),
        ("/assemblies?limit=0", 400),
        ("/assemblies?next=", 400),
    ],
)
def test_each_state_and_refusal_has_its_described_answer(
    deployed: Deployed, authorized: dict[str, str], path: str, status: int
) -> None:
    response = httpx.get(deployed.http_url + path, headers=authorized, trust_env=False)
    assert response.status_code == status, response.text
    route = re.sub("^/status/[^?]+", "/status/{assembly_id}", path).partition("?")[0]
    api[route]["GET"].validate_response(response)


def test_a_batch_has_null_for_foreign_and_missing_assemblies(
    deployed: Deployed, authorized: dict[str, str]
) -> None:
    url, body = f"{deployed.http_url}/status/batch", {"assemblyIds": list(KNOWN)}
    response = httpx.post(url, json=body, headers=authorized, trust_env=False)
    api["/status/batch"]["POST"].validate_response(response)
    statuses = response.json()["statuses"]
    assert [name for name in KNOWN if statuses[name] is None] == [FOREIGN, ABSENT]


def test_an_ended_document_has_an_etag_and_gets_304(
    deployed: Deployed, authorized: dict[str, str]
) -> None:
    url, operation = f"{deployed.http_url}/status/{ENDED}", api["/status/{assembly_id}"]["GET"]
    first = httpx.get(url, headers=authorized, trust_env=False)
    tag = {"If-None-Match": first.headers["ETag"]}
    again = httpx.get(url, headers=authorized | tag, trust_env=False)
    assert (again.status_code, again.content) == (304, b"")
    operation.validate_response(again)


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (path, method.upper())
        for path, methods in sorted(api.raw_schema["paths"].items())
        for method, operation in methods.items()
        if operation.get("security") != []
    ],
)
def test_every_route_refuses_a_request_without_a_token(
    deployed: Deployed, path: str, method: str
) -> None:
    response = httpx.request(
        method,
        deployed.http_url + re.sub(r"\{\w+\}", ENDED, path),
        params={"assemblyId": ENDED} if path == "/status" else None,
        json={"assemblyIds": [ENDED]} if method == "POST" else None,
        trust_env=False,
    )
    assert response.status_code == 401
    api[path][method].validate_response(response)


def test_cors_allows_polling_with_if_none_match(
    deployed: Deployed, authorized: dict[str, str]
) -> None:
    """ETag and Retry-After are exposed."""
    origin = {"Origin": "https://pages.example.com"}
    wanted = ["authorization", "content-type", "if-none-match"]
    asked = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": ",".join(wanted),
    }
    url = f"{deployed.http_url}/status/{ENDED}"
    preflight = httpx.options(url, headers=origin | asked, trust_env=False)
    assert preflight.status_code in (200, 204)
    allowed = preflight.headers["access-control-allow-headers"].lower().replace(" ", "")
    assert set(wanted) <= set(allowed.split(","))

    answered = httpx.get(url, headers=origin | authorized, trust_env=False)
    assert answered.headers["access-control-allow-origin"] in ("*", origin["Origin"])
    exposed = answered.headers["access-control-expose-headers"].lower().replace(" ", "")
    assert {"etag", "retry-after"} <= set(exposed.split(","))
    tag = {"If-None-Match": answered.headers["etag"]}
    assert httpx.get(url, headers=origin | authorized | tag, trust_env=False).status_code == 304
