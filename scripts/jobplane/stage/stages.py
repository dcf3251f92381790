"""A stage: its endpoint and clients, and the saved state of a local one."""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import click

from jobplane.tree.names import Names
from jobplane.tree.repository import Repository, read_yaml

# Short enough in most regions; scripts/serverless/name-limits.js checks all names that use it.
STAGE_NAME = re.compile(r"^[a-z][a-z0-9-]{0,19}$")
LONGEST_RUN_SECONDS = 900
ROOT_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class StageNotUpError(click.ClickException):
    """The local stage isn't running."""

    def __init__(self, stage: str) -> None:
        option = "" if stage == "local" else f" --stage {stage}"
        super().__init__(f"stage {stage!r} is not running; start it: jobplane up{option}")


class NoCredentialsError(click.ClickException):
    """The stage isn't local, and there are no credentials for AWS."""

    def __init__(self, stage: str) -> None:
        super().__init__(
            f"stage {stage!r} is not running locally (start it: jobplane up --stage {stage}), "
            "and no AWS credentials were found; set AWS_PROFILE or log in"
        )


@dataclass
class State:
    pid: int
    started: str
    """The process's start time: the pid alone may belong to another process by now."""
    port: int
    region: str
    log: str
    jwt_secret: str
    config: str = ""
    """Digest of the configuration that is deployed."""
    stack: str = ""
    """The stack's id and last change at that deployment, to detect later changes by others."""
    functions: dict[str, str] = field(default_factory=dict)
    """Digest of the artifact that is deployed, by function."""
    description: dict[str, Any] = field(default_factory=dict)
    """What `info` prints."""


@dataclass(frozen=True)
class Stage:
    """A deployment of this repository, on the emulator or on AWS."""

    repository: Repository
    name: str

    def __post_init__(self) -> None:
        if not STAGE_NAME.match(self.name):
            raise click.UsageError(
                f"invalid stage name {self.name!r}: use 1 to 20 of a-z, 0-9 and -, a letter first"
            )

    @cached_property
    def names(self) -> Names:
        return self.repository.names(self.name)

    @property
    def directory(self) -> Path:
        return self.repository.scratch / self.name

    @property
    def state_path(self) -> Path:
        return self.directory / "state.json"

    def read_state(self) -> State | None:
        if not self.state_path.is_file():
            return None
        return State(**json.loads(self.state_path.read_text()))

    def write_state(self, state: State) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.state_path.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(asdict(state), indent=2) + "\n")
        partial.replace(self.state_path)

    @cached_property
    def is_local(self) -> bool:
        return self.state_path.is_file()

    @property
    def endpoint_url(self) -> str | None:
        state = self.read_state()
        return f"http://127.0.0.1:{state.port}" if state else None

    def require(self) -> "Stage":
        """This stage, after checking that it can be reached; the default stage is always local."""
        if self.name == "local" and not self.is_local:
            raise StageNotUpError(self.name)
        return self

    def refuse_unless_local(self, action: str, why: str = "", *, yes: bool) -> None:
        """Refuse to write to a stage that others use, unless the user passed --yes."""
        if not (self.is_local or yes):
            reason = "it is not a local stage" + (f", and {why}" if why else "")
            raise click.UsageError(f"refusing to {action}: {reason}; pass --yes to do it anyway")

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client of the stage, with the emulator's root or the caller's AWS credentials."""
        import boto3
        from botocore.config import Config

        state = self.read_state()
        if state is None:
            session = boto3.Session(region_name=default_region(self.repository))
            if session.get_credentials() is None:
                raise NoCredentialsError(self.name)
            return session.client(service, config=Config(**config))
        return _session_of_emulators().client(
            service,
            config=Config(proxies={}, **config),
            endpoint_url=f"http://127.0.0.1:{state.port}",
            region_name=state.region,
            aws_access_key_id=ROOT_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ROOT_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )

    def invoker(self) -> Any:
        return self.client(
            "lambda", read_timeout=LONGEST_RUN_SECONDS + 10, retries={"total_max_attempts": 1}
        )

    def environment(self) -> dict[str, str]:
        state = self.read_state()
        if state is None:
            raise StageNotUpError(self.name)
        return {
            **ROOT_CREDENTIALS,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{state.port}",
            "AWS_REGION": state.region,
            "AWS_DEFAULT_REGION": state.region,
        }


@cache
def _session_of_emulators() -> Any:
    """One session for all: each new boto3 session adds its handlers to botocore's again."""
    import boto3

    from jobplane.terminal.environments import session_without_account

    return boto3.Session(botocore_session=session_without_account())


def default_region(repository: Repository) -> str:
    declared = str(read_yaml(repository.root / "serverless.yml")["provider"]["region"])
    literal = re.search(r"'([a-z0-9-]+)'", declared)
    if literal is None:
        return declared
    return os.environ.get("AWS_REGION") or literal[1]
