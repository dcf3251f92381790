"""A function that needs a lib of its workspace."""

from typing import Any

from greeting import greeting


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer a request of API Gateway."""
    name = (event.get("queryStringParameters") or {}).get("name", "world")
    return {"statusCode": 200, "body": greeting(name)}
