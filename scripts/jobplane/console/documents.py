"""What the console says of an assembly's webhook."""

from collections.abc import Mapping
from typing import Any

from jobplane.console import api
from jobplane.console.backend import Backend

EXPLAINED = {
    "pending": "It is queued; deliver-webhook sends it within seconds.",
    "delivered": "The receiver has accepted it.",
    "retrying": "The last attempt failed. The next one follows by itself, seven in all over 7"
    " hours; if the receiver works again, send it again now.",
    "failed": "All attempts failed, and it is given up. Correct the receiver, then send it again.",
    "disabled": "The receiver answered 410, which ends deliveries. If that was wrong, send it"
    " again.",
    "unsigned_refused": "It was not sent: the template has no secret to sign it with. Set the"
    " secret, then send it again.",
    "refused": "It was not sent: its URL is not allowed (a private address, or plain HTTP). Change"
    " the URL, then send it again.",
}


def webhook_state(backend: Backend, document: Mapping[str, Any]) -> api.WebhookState:
    """The delivery of an assembly's webhook."""
    webhook = document.get("webhook") or {}
    status = webhook.get("status")
    return api.WebhookState(
        status=status,
        attempts=int(webhook.get("attempts") or 0),
        last_attempt_at=webhook.get("last_attempt_at"),
        last_response_code=webhook.get("last_response_code"),
        error=webhook.get("error"),
        host=backend.webhook_host(document.get("template_id", "")),
        explanation=EXPLAINED.get(status or "", "The template has no webhook."),
    )
