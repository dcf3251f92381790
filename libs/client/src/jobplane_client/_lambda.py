"""Status look-ups by Lambda invoke. Needs the extra `aws`."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from jobplane_client._answers import Answer, NotifiedStatus
from jobplane_client._errors import (
    BadPayloadError,
    CallTimeoutError,
    FunctionError,
    InvocationError,
    ServiceUnavailableError,
)
from jobplane_client._flows import (
    AsyncDriver,
    BatchLookUp,
    Caller,
    Driver,
    LookUp,
    Question,
    StatusFlows,
)
from jobplane_models.assemblies import AssemblyDocument

_THROTTLES = frozenset(
    {
        "EC2ThrottledException",
        "ProvisionedConcurrencyLimitExceeded",
        "RequestLimitExceeded",
        "SnapStartNotReadyException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class StatusClient:
    """Looks assemblies up by invoking the status function, with the permissions of its IAM role.

    `tenant_id` is the tenant of all its users; without one, a user's assemblies are those of the
    users with this id in all tenants.
    `client` is a boto3 Lambda client to use instead of a new one for `region` and `endpoint_url`.
    `timeout` is the limit of one call in seconds. A call that fails for a passing reason is
    repeated up to `retries` times. Large batches are read with `concurrency` calls at a time.
    Documents of completed jobs are cached by user for `cache_ttl` seconds, at most `cache_size` of
    them (0 turns the cache off). `clock` and `sleep` replace the functions of `time` in tests.
    """

    def __init__(
        self,
        function_name: str,
        *,
        tenant_id: str | None = None,
        client: Any = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        timeout: float = 35.0,
        retries: int = 3,
        concurrency: int = 10,
        cache_size: int = 1024,
        cache_ttl: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if client is None:
            client = _new_client(region, endpoint_url, timeout, concurrency)
        self._driver = Driver(
            _LambdaTransport(function_name, client, tenant_id), sleep, concurrency
        )
        self._flows = StatusFlows(
            retries=retries,
            cache_size=cache_size,
            cache_ttl=cache_ttl,
            clock=clock,
        )

    def get_status(self, assembly_id: str, user_id: str | None = None) -> AssemblyDocument:
        """The current document of an assembly, looked up on behalf of `user_id`.

        Raises NotFoundError if it does not exist, ForbiddenError if it belongs to another user,
        UnauthorizedError without a user, InvalidRequestError for a malformed id, and
        ServiceUnavailableError, RateLimitedError, CallTimeoutError, FunctionError, InvocationError
        or BadPayloadError when the call fails.
        """
        return self._driver.run(self._flows.get_status(assembly_id, user_id))

    def get_status_with_webhook(
        self, assembly_id: str, user_id: str | None = None
    ) -> NotifiedStatus:
        """Send an ended assembly's webhook again, and return its document and the delivery.

        Raises ConflictError while the job runs, RateLimitedError when the webhook was sent
        shortly before, and the errors of `get_status`.
        """
        return self._driver.run(self._flows.get_status_with_webhook(assembly_id, user_id))

    def get_batch_status(
        self, assembly_ids: Sequence[str], user_id: str | None = None
    ) -> dict[str, AssemblyDocument | None]:
        """Documents by id, in the given order; None for one that is missing or another user's.

        Raises the errors of `get_status`, but NotFoundError and ForbiddenError.
        """
        return self._driver.run(self._flows.get_batch_status(assembly_ids, user_id))

    def wait(
        self,
        assembly_id: str,
        timeout: float,
        user_id: str | None = None,
        request_id: str | None = None,
    ) -> AssemblyDocument:
        """Wait until the job has ended and return its document; see its `completed` and `error`.

        An assembly that failed or was cancelled can be requested again. With `request_id`, that of
        the acknowledgment, the end of an earlier request is not returned.

        Raises WaitTimeoutError, with the last document, after `timeout` seconds, and the errors of
        `get_status` that repeating the call does not solve.
        """
        return self._driver.run(self._flows.wait(assembly_id, timeout, user_id, request_id))


class AsyncStatusClient:
    """StatusClient for an event loop: boto3 blocks, so its calls are made in threads."""

    def __init__(
        self,
        function_name: str,
        *,
        tenant_id: str | None = None,
        client: Any = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        timeout: float = 35.0,
        retries: int = 3,
        concurrency: int = 10,
        cache_size: int = 1024,
        cache_ttl: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if client is None:
            client = _new_client(region, endpoint_url, timeout, concurrency)
        transport = _ThreadedLambdaTransport(_LambdaTransport(function_name, client, tenant_id))
        self._driver = AsyncDriver(transport, sleep, concurrency)
        self._flows = StatusFlows(
            retries=retries,
            cache_size=cache_size,
            cache_ttl=cache_ttl,
            clock=clock,
        )

    async def get_status(self, assembly_id: str, user_id: str | None = None) -> AssemblyDocument:
        """See StatusClient.get_status."""
        return await self._driver.run(self._flows.get_status(assembly_id, user_id))

    async def get_status_with_webhook(
        self, assembly_id: str, user_id: str | None = None
    ) -> NotifiedStatus:
        """See StatusClient.get_status_with_webhook."""
        return await self._driver.run(self._flows.get_status_with_webhook(assembly_id, user_id))

    async def get_batch_status(
        self, assembly_ids: Sequence[str], user_id: str | None = None
    ) -> dict[str, AssemblyDocument | None]:
        """See StatusClient.get_batch_status."""
        return await self._driver.run(self._flows.get_batch_status(assembly_ids, user_id))

    async def wait(
        self,
        assembly_id: str,
        timeout: float,
        user_id: str | None = None,
        request_id: str | None = None,
    ) -> AssemblyDocument:
        """See StatusClient.wait."""
        return await self._driver.run(self._flows.wait(assembly_id, timeout, user_id, request_id))


class _LambdaTransport:
    def __init__(self, function_name: str, client: Any, tenant_id: str | None) -> None:
        self._function_name = function_name
        self._client = client
        self._tenant_id = tenant_id

    def identify(self, user_id: str | None) -> Caller:
        return Caller(user_id)

    def send(self, question: Question) -> Answer:
        event: dict[str, Any]
        if isinstance(question, BatchLookUp):
            event = {"assemblyIds": list(question.assembly_ids)}
        else:
            assert isinstance(question, LookUp)  # jobs are asked for over HTTP
            event = {"assemblyId": question.assembly_id}
            if question.trigger_webhook:
                event["triggerWebhook"] = True
        if question.caller.key is not None:
            event["userId"] = question.caller.key
        if self._tenant_id is not None:
            event["tenantId"] = self._tenant_id
        return _answer(*self._invoke(json.dumps(event, separators=(",", ":")).encode()))

    def _invoke(self, payload: bytes) -> tuple[Mapping[str, Any], bytes]:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,  # botocore's class of that name, not the builtin
            HTTPClientError,
            ReadTimeoutError,
        )

        try:
            response = self._client.invoke(
                FunctionName=self._function_name,
                InvocationType="RequestResponse",
                Payload=payload,
            )
            return response, response["Payload"].read()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _THROTTLES or status >= 500:
                raise ServiceUnavailableError(f"Lambda answered with {code}", code=code) from error
            raise InvocationError(
                f"{self._function_name} can't be invoked: {code}", code=code
            ) from error
        except ReadTimeoutError as error:
            raise CallTimeoutError(f"{self._function_name} did not answer in time") from error
        except (ConnectionError, HTTPClientError) as error:
            raise ServiceUnavailableError("Lambda can't be reached") from error
        except BotoCoreError as error:
            raise InvocationError(f"{self._function_name} can't be invoked: {error}") from error


class _ThreadedLambdaTransport:
    def __init__(self, transport: _LambdaTransport) -> None:
        self._transport = transport

    async def identify(self, user_id: str | None) -> Caller:
        return self._transport.identify(user_id)

    async def send(self, question: Question) -> Answer:
        return await asyncio.to_thread(self._transport.send, question)


def _answer(response: Mapping[str, Any], payload: bytes) -> Answer:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = None
    if response.get("FunctionError"):
        fault = value if isinstance(value, dict) else {}
        raise FunctionError(
            str(fault.get("errorMessage") or "the status function failed"),
            error_type=fault.get("errorType"),
        )
    if not isinstance(value, dict):
        raise BadPayloadError("the status function's answer is not a JSON object")
    status, body, headers = value.get("statusCode"), value.get("body"), value.get("headers")
    if not isinstance(status, int) or not isinstance(body, str):
        raise BadPayloadError("the status function answered without statusCode and body")
    return Answer(
        status,
        {str(name).lower(): str(text) for name, text in (headers or {}).items()},
        body,
    )


def _new_client(
    region: str | None, endpoint_url: str | None, timeout: float, concurrency: int
) -> Any:
    import boto3
    from botocore.config import Config

    # This library retries; retries of botocore would multiply them.
    config = Config(
        connect_timeout=3,
        read_timeout=timeout,
        retries={"total_max_attempts": 1},
        max_pool_connections=max(concurrency, 10),
    )
    return boto3.client("lambda", region_name=region, endpoint_url=endpoint_url, config=config)
