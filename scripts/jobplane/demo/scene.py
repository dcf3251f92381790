"""What the steps share: the stage, its user, the files, and the jobs."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from jobplane.demo.files import DemoFile
from jobplane.demo.receiver import Receiver
from jobplane.demo.screen import Screen
from jobplane.stage.signing import jwt_secret
from jobplane.stage.stages import Stage
from jobplane.trying.job_flow import JobFlow
from jobplane_client import AsyncHttpStatusClient, JobSocket, mint_token
from jobplane_models.assemblies import AssemblyDocument

TENANT = "acme"
STRANGE_TENANT = "globex"


@dataclass
class Job:
    template: str
    files: tuple[DemoFile, ...]
    uploads: list[dict[str, Any]] = field(default_factory=list)
    assembly_id: str = ""
    request_id: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    """The result in the job's `complete` message."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        return self.files[0].name if len(self.files) == 1 else f"{len(self.files)} files"

    @property
    def payload(self) -> dict[str, Any]:
        return {"template_id": self.template, "uploads": self.uploads}


@dataclass
class Scene:
    """A user of a running stage, a new one in each run, with a receiver for the webhooks."""

    stage: Stage
    description: Mapping[str, Any]
    folder: Path
    """Holds the input files."""
    megabytes: int
    screen: Screen
    receiver: Receiver
    http: httpx.AsyncClient
    stack: AsyncExitStack
    """Closed at the end of the demo."""
    user: str = field(default_factory=lambda: f"demo-{secrets.token_hex(4)}")
    jobs: list[Job] = field(default_factory=list)
    documents: dict[str, AssemblyDocument] = field(default_factory=dict)
    """The answers of `status` by assembly id."""
    flow: JobFlow = field(init=False)
    """Set by the first step on the job flow."""
    _socket: JobSocket | None = None

    @property
    def token(self) -> str:
        return mint_token(jwt_secret(self.stage), user=self.user, tenant=TENANT)

    @property
    def other_token(self) -> str:
        """A valid JWT of a user of another tenant."""
        return mint_token(jwt_secret(self.stage), user="mallory", tenant=STRANGE_TENANT)

    @property
    def socket(self) -> JobSocket:
        if self._socket is None:
            raise RuntimeError("no socket is open")
        return self._socket

    @property
    def largest(self) -> Job:
        return max(self.jobs, key=lambda job: job.size)

    async def connect(self) -> None:
        """Open the user's socket, for as long as the demo lasts."""
        session = JobSocket(self.description["websocket_url"], lambda: self.token)
        self._socket = await self.stack.enter_async_context(session)

    def status_client(self, token: str) -> AsyncHttpStatusClient:
        url = self.description["http_url"]
        return AsyncHttpStatusClient(url, token, client=self.http, cache_size=0)


@asynccontextmanager
async def set_scene(
    stage: Stage, description: Mapping[str, Any], folder: Path, megabytes: int, screen: Screen
) -> AsyncIterator[Scene]:
    """Start the receiver, set it as the stage's webhook receiver, and close all in the end."""
    async with AsyncExitStack() as stack:
        parameters = stack.enter_context(closing(_WebhookParameters(stage)))
        receiver = Receiver(parameters.secret)
        stack.enter_context(receiver.listening(parameters.port))
        parameters.write(receiver.url)
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60, trust_env=False))
        yield Scene(stage, description, folder, megabytes, screen, receiver, http, stack)


class _WebhookParameters:
    """The SSM parameters with the URL and the secret of the stage's webhooks.

    Existing parameters are reused if possible, because `status` caches them for a minute.
    """

    def __init__(self, stage: Stage) -> None:
        self._names = stage.names
        self._client = stage.client("ssm")
        self.secret = self._read("secret") or secrets.token_hex(32)
        self.port = urlsplit(self._read("url") or "").port or 0

    def close(self) -> None:
        self._client.close()

    def write(self, url: str) -> None:
        for name, value in (("url", url), ("secret", self.secret)):
            self._client.put_parameter(
                Name=self._parameter(name), Value=value, Type="SecureString", Overwrite=True
            )

    def _parameter(self, name: str) -> str:
        return self._names.parameter(f"webhooks/{name}")

    def _read(self, name: str) -> str | None:
        try:
            found = self._client.get_parameter(Name=self._parameter(name), WithDecryption=True)
        except self._client.exceptions.ParameterNotFound:
            return None
        value: str = found["Parameter"]["Value"]
        return value
