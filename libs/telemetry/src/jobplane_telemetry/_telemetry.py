"""Logs, metrics and traces of a function."""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from types import MappingProxyType
from typing import Any

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
_NO_IDS: Mapping[str, Any] = MappingProxyType({})
# CloudWatch drops a metric with more values in one line.
_MAX_VALUES = 100
_TRACE_HEADER = "_X_AMZN_TRACE_ID"

type Handler = Callable[[Any, Any], Any]


class Telemetry:
    """Logs, metrics and traces of one function.

    Create it once, at import; `service` is the function's name. The environment variables are
    `STAGE` (default local), `LOG_LEVEL` (default INFO) and `METRICS_NAMESPACE` (default Jobplane).
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self._stage = os.environ.get("STAGE", "local")
        self._threshold = _LEVELS.get(os.environ.get("LOG_LEVEL", "INFO").upper(), 20)
        self._namespace = os.environ.get("METRICS_NAMESPACE", "Jobplane")
        self._cold = True
        self._invocation: dict[str, Any] = {}
        self._ids: ContextVar[Mapping[str, Any]] = ContextVar("ids", default=_NO_IDS)
        self._trace: ContextVar[str | None] = ContextVar("trace", default=None)
        self._metrics: dict[tuple[tuple[str, str], ...], dict[str, tuple[str, list[float]]]] = {}
        self._lock = threading.Lock()

    def handler(self, function: Handler) -> Handler:
        """Decorate a Lambda handler: log lines have the invocation's ids, metrics are written at
        the end, an exception is logged once and raised unchanged.

        Raises ImportError in a sampled invocation without the extra `xray`.
        """

        @wraps(function)
        def invoke(event: Any, context: Any) -> Any:
            self._start(context)
            with self.ids(), self.trace(os.environ.get(_TRACE_HEADER)):
                try:
                    return function(event, context)
                except Exception as error:
                    self.error("invocation failed", error=type(error).__name__, stack=_stack(error))
                    raise
                finally:
                    self._flush()

        return invoke

    @contextmanager
    def ids(self, **ids: Any) -> Iterator[None]:
        """Add ids to the log lines and traces within the block."""
        token = self._ids.set({**self._ids.get(), **ids})
        try:
            yield
        finally:
            self._ids.reset(token)

    def bind(self, **ids: Any) -> None:
        """Add ids for the rest of the current `ids` block, or of the invocation."""
        self._ids.set({**self._ids.get(), **ids})
        if (tracing := sys.modules.get("jobplane_telemetry._tracing")) is not None:
            tracing.annotate(ids)

    def debug(self, message: str, **fields: Any) -> None:
        """Log details that help to find a fault."""
        self._log("DEBUG", message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """Log an event."""
        self._log("INFO", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Log a failure that was handled."""
        self._log("WARNING", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Log a failure that needs an operator."""
        self._log("ERROR", message, fields)

    def exception(self, message: str, error: BaseException, **fields: Any) -> None:
        """Log an exception with its stack."""
        fields |= {"error": type(error).__name__, "stack": _stack(error)}
        self._log("ERROR", message, fields)

    def metric(self, name: str, value: float = 1, unit: str = "Count", **dimensions: str) -> None:
        """Record a value, written at the end of the invocation. Dimensions must have few values."""
        with self._lock:
            group = self._metrics.setdefault(tuple(sorted(dimensions.items())), {})
            group.setdefault(name, (unit, []))[1].append(value)

    @property
    def trace_header(self) -> str | None:
        """The X-Ray header of the current `trace` block, or of the invocation; None without one.

        Pass it on to the code that continues the work.
        """
        return self._trace.get() or os.environ.get(_TRACE_HEADER)

    @contextmanager
    def trace(self, header: str | None) -> Iterator[None]:
        """Log lines within the block have the header's trace id. If the trace is sampled, AWS
        calls are recorded in it. Without a header the block has no effect.
        """
        if not header:
            yield
            return
        token = self._trace.set(header)
        try:
            with self._segment(header):
                yield
        finally:
            self._trace.reset(token)

    def _segment(self, header: str) -> AbstractContextManager[None]:
        if "Sampled=1" not in header:
            return nullcontext()
        from jobplane_telemetry import _tracing

        name = self._invocation.get("function_name", self.service)
        return _tracing.segment(name, header, self._ids.get())

    def _start(self, context: Any) -> None:
        self._invocation = {
            "cold_start": self._cold,
            "function_name": getattr(context, "function_name", self.service),
            "function_memory_size": getattr(context, "memory_limit_in_mb", None),
            "function_arn": getattr(context, "invoked_function_arn", None),
            "function_request_id": getattr(context, "aws_request_id", None),
        }
        self._cold = False

    def _log(self, level: str, message: str, fields: dict[str, Any]) -> None:
        if _LEVELS[level] < self._threshold:
            return
        self._write(
            {
                "level": level,
                "message": message,
                "timestamp": _iso_now(),
                "service": self.service,
                **self._invocation,
                **({"xray_trace_id": _trace_id(header)} if (header := self.trace_header) else {}),
                **self._ids.get(),
                **fields,
            }
        )

    def _flush(self) -> None:
        with self._lock:
            groups, self._metrics = self._metrics, {}
        for dimensions, metrics in groups.items():
            longest = max(len(values) for _, values in metrics.values())
            for start in range(0, longest, _MAX_VALUES):
                part = {
                    name: (unit, values[start : start + _MAX_VALUES])
                    for name, (unit, values) in metrics.items()
                    if start < len(values)
                }
                self._write_metrics(dict(dimensions), part)

    def _write_metrics(
        self, dimensions: dict[str, str], metrics: dict[str, tuple[str, list[float]]]
    ) -> None:
        sets = [["Environment"], ["Environment", *dimensions]] if dimensions else [["Environment"]]
        self._write(
            {
                "_aws": {
                    "Timestamp": int(time.time() * 1000),
                    "CloudWatchMetrics": [
                        {
                            "Namespace": self._namespace,
                            "Dimensions": sets,
                            "Metrics": [
                                {"Name": name, "Unit": unit} for name, (unit, _) in metrics.items()
                            ],
                        }
                    ],
                },
                "Environment": self._stage,
                "service": self.service,
                "function_request_id": self._invocation.get("function_request_id"),
                **self._ids.get(),
                **dimensions,
                **{
                    name: values[0] if len(values) == 1 else values
                    for name, (_, values) in metrics.items()
                },
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"), default=str)
        # Read at every call: the runtime may replace standard output after import.
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _trace_id(header: str) -> str:
    return header.partition("Root=")[2].partition(";")[0] or header


def _iso_now() -> str:
    seconds, milliseconds = divmod(int(time.time() * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _stack(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
