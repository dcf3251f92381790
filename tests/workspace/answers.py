"""Functions' answers, checked against the published schemas."""

import json
from typing import Any

from jobplane.trying.cases import Case, Outcome
from tests.published import faults_of_ours, is_published

LOOK_UPS = ("http/assembly", "http/assembly-page", "http/batch-answer")


def answer_faults(case: Case, outcome: Outcome) -> list[str]:
    """The faults of an answer, and of the JSON text in it."""
    answer, name = outcome.answer, case.function.name
    if outcome.error is not None or not is_published(f"functions/{name}/result"):
        return []
    found = faults_of_ours(f"functions/{name}/result", answer)
    if not found and isinstance(answer, dict) and answer.get("body"):
        found = body_faults(name, case.name, answer["statusCode"], json.loads(answer["body"]))
    return found


def body_faults(function: str, case: str, status: int, body: Any) -> list[str]:
    """The faults of the body of a proxy answer."""
    if function == "connect" and not case.startswith("authenticate"):
        return faults_of_ours("socket/handshake", body)
    if function in {"connect", "router"}:
        return message_faults(case, body)
    if function == "status" and status >= 400:
        return faults_of_ours("http/refusal", body)
    if function == "status":
        return least(faults_of_ours(name, body) for name in LOOK_UPS)
    return []


def message_faults(case: str, message: dict[str, Any]) -> list[str]:
    """The faults of a server message, and of a response's data."""
    found = faults_of_ours("socket/server-message", message)
    if message.get("type") != "response":
        return found
    answers = (
        "authenticate",
        "callback",
        "cancel",
        "create-upload",
        "echo",
        "health",
        "status",
        "subscribe",
        "unsubscribe",
    )
    (action,) = [name for name in answers if case.startswith(name)]
    return found + faults_of_ours(f"socket/answers/{action}", message["data"])


def least(alternatives: Any) -> list[str]:
    """The faults by the schema that fits best."""
    return min(alternatives, key=len)
