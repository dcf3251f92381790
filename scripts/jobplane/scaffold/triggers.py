"""The kinds of functions to create, and their table for docs/adding-a-function.md."""

from dataclasses import dataclass
from pathlib import Path

from jobplane.reference.documents import table

DOCUMENT = Path("docs", "adding-a-function.md")


@dataclass(frozen=True)
class Trigger:
    name: str
    caller: str
    example: str


TRIGGERS = (
    Trigger("invoke", "another service", "counts the open connections of a tenant"),
    Trigger(
        "websocket", "messages whose `action` is its name", "returns the user of the connection"
    ),
    Trigger("http", "`GET /<name>/{request_id}`", "shows one of the caller's requests"),
    Trigger(
        "sqs", "a queue of its own, with dead letters", "cancels the requests that messages name"
    ),
    Trigger(
        "stream", "the stream of `requests`", "measures how requests ended, and how long they took"
    ),
    Trigger(
        "s3", "new objects under its folder of the files bucket", "measures the size of each object"
    ),
    Trigger("schedule", "every five minutes", "counts overdue requests"),
    Trigger("step-functions", "a state of the job flow", "counts how often a job was interrupted"),
)


def tables() -> dict[str, str]:
    rows = [(f"`{each.name}`", each.caller, each.example) for each in TRIGGERS]
    return {"triggers": table(("trigger", "what calls it", "the function you start with"), rows)}
