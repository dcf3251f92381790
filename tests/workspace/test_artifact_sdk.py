"""The shipped SDK is cut down, and what remains works as in botocore."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from lambdapack.thinning import iam
from lambdapack.thinning.sdk import CALLED_BY_BOTOCORE, Grants
from tests.loopback import serving
from tests.workspace.copies import Built
from tests.workspace.unpacked import FUNCTIONS, bare, environment, unpack

JSON = {"Content-Type": "application/x-amz-json-1.0"}
THROTTLED = json.dumps({"__type": "ThrottlingException", "message": "slow down"})
FAILED_CONDITION = json.dumps(
    {
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
    }
)
NO_SUCH_KEY = "<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>"


@dataclass
class Aws:
    """An endpoint with answers in order; the last one is repeated."""

    answers: list[tuple[int, Mapping[str, str], str]]
    url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def answering(
    *answers: tuple[int, Mapping[str, str], str], context: ssl.SSLContext | None = None
) -> Iterator[Aws]:
    """AWS on loopback."""
    aws = Aws(list(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            aws.requests.append((self.command, self.path, dict(self.headers)))
            last = len(aws.answers) == 1
            status, headers, body = aws.answers[0] if last else aws.answers.pop(0)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())
            self.wfile.flush()

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - http.server's own naming

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler, context) as port:
        aws.url = f"http{'s' if context else ''}://localhost:{port}"
        yield aws


@pytest.fixture(scope="module")
def folders(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder that a function's artifact is unpacked to."""
    repository, artifacts = built
    known: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in known:
            known[name] = unpack(
                repository, artifacts[name], tmp_path_factory.mktemp(name) / "task"
            )
        return known[name]

    return folder


type Run = Callable[..., Any]


@pytest.fixture
def run(built: Built, folders: Callable[[str], Path]) -> Run:
    """Runs a script in a function's artifact; what it prints last is JSON and the result.

    A variable of None is taken away.
    """

    def run(
        script: str, aws: Aws | None = None, *, function: str = "router", **variables: str | None
    ) -> Any:
        folder = folders(function)
        known = environment(built[0], function, folder) | {
            "AWS_ENDPOINT_URL": aws.url if aws else "http://127.0.0.1:9"
        }
        merged = {name: value for name, value in (known | variables).items() if value is not None}
        prelude = "import botocore.session\nsession = botocore.session.get_session()\n"
        return json.loads(bare(prelude + script, folder, merged).splitlines()[-1])

    return run


PUT = """
dynamodb = session.create_client("dynamodb")
answer = dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
print(json.dumps(answer["ResponseMetadata"]["RetryAttempts"]))
"""


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive", None])
@pytest.mark.parametrize("failure", [(500, JSON, "{}"), (400, JSON, THROTTLED)])
def test_a_failed_call_is_repeated_in_every_retry_mode(
    run: Run, failure: tuple[int, Mapping[str, str], str], mode: str | None
) -> None:
    with answering(failure, (200, JSON, "{}")) as aws:
        assert run(PUT, aws, AWS_RETRY_MODE=mode) == 1
        assert len(aws.requests) == 2


def test_retries_end_after_AWS_MAX_ATTEMPTS(run: Run) -> None:
    script = """
from botocore.exceptions import ClientError
dynamodb = session.create_client("dynamodb")
try:
    dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
except ClientError as error:
    print(json.dumps(error.response["Error"]["Code"]))
"""
    with answering((400, JSON, THROTTLED)) as aws:
        assert run(script, aws, AWS_RETRY_MODE="standard", AWS_MAX_ATTEMPTS="2") == (
            "ThrottlingException"
        )
        assert len(aws.requests) == 2


def test_a_modeled_error_has_its_own_class(run: Run) -> None:
    script = """
from botocore.exceptions import ClientError
dynamodb = session.create_client("dynamodb")
try:
    dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
except dynamodb.exceptions.ConditionalCheckFailedException as error:
    print(json.dumps([isinstance(error, ClientError), str(error)]))
"""
    with answering((400, JSON, FAILED_CONDITION)) as aws:
        is_client_error, text = run(script, aws)
    assert is_client_error
    assert "The conditional request failed" in text


def test_a_read_timeout_raises_its_error(run: Run) -> None:
    script = """
import socket, threading
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError
listener = socket.create_server(("127.0.0.1", 0))
dynamodb = session.create_client(
    "dynamodb", endpoint_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
    config=Config(read_timeout=0.2, connect_timeout=1, retries={"total_max_attempts": 1}),
)
try:
    dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
except ReadTimeoutError as error:
    print(json.dumps(str(error)))
"""
    assert "Read timeout on endpoint URL" in run(script)


def test_a_refused_connection_raises_EndpointConnectionError(run: Run) -> None:
    script = """
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
dynamodb = session.create_client("dynamodb", config=Config(retries={"total_max_attempts": 1}))
try:
    dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
except EndpointConnectionError as error:
    print(json.dumps(str(error)))
"""
    assert "Could not connect" in run(script)


def test_a_paginator_follows_LastEvaluatedKey(run: Run) -> None:
    script = """
dynamodb = session.create_client("dynamodb")
pages = dynamodb.get_paginator("query").paginate(
    TableName="t", KeyConditionExpression="a = :a", ExpressionAttributeValues={":a": {"S": "b"}}
)
print(json.dumps(list(pages.search("Items[].a.S"))))
"""
    first = {"Items": [{"a": {"S": "1"}}], "Count": 1, "LastEvaluatedKey": {"a": {"S": "1"}}}
    last = {"Items": [{"a": {"S": "2"}}], "Count": 1}
    with answering((200, JSON, json.dumps(first)), (200, JSON, json.dumps(last))) as aws:
        assert run(script, aws) == ["1", "2"]


def test_wrong_parameters_are_refused(run: Run) -> None:
    script = """
from botocore.exceptions import ParamValidationError
dynamodb = session.create_client("dynamodb")
try:
    dynamodb.query(TableName="t", Limit="x", IndexName=1, Nothing=2)
except ParamValidationError as error:
    print(json.dumps(str(error)))
"""
    text = run(script)
    for name in ("Limit", "IndexName", "Nothing"):
        assert name in text


def test_a_Decimal_is_accepted_for_a_fraction_and_a_text_is_not(run: Run) -> None:
    script = """
from decimal import Decimal
from botocore.validate import ParamValidator
from botocore.model import Shape
shape = Shape("Double", {"type": "double"})
reports = [ParamValidator().validate(value, shape) for value in (Decimal("0.5"), 0.5, 1, "x")]
print(json.dumps([report.generate_report() for report in reports]))
"""
    *numbers, text = run(script)
    assert numbers == ["", "", ""]
    assert "<class 'float'>, <class 'decimal.Decimal'>, <class 'int'>" in text


@pytest.mark.parametrize("function", ["processor"])
def test_xml_errors_of_s3_have_their_code(run: Run, function: str) -> None:
    script = """
from botocore.exceptions import ClientError
s3 = session.create_client("s3")
body = s3.get_object(Bucket="b", Key="k")["Body"].read().decode()
try:
    s3.get_object(Bucket="b", Key="k")
except ClientError as error:
    print(json.dumps([body, error.response["Error"]["Code"]]))
"""
    modified = {"Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT"}
    with answering((200, modified, "content"), (404, {}, NO_SUCH_KEY)) as aws:
        assert run(script, aws, function=function) == ["content", "NoSuchKey"]


def test_a_put_object_has_its_content_and_checksum(run: Run) -> None:
    script = """
import io
s3 = session.create_client("s3")
s3.put_object(Bucket="b", Key="k", Body=io.BytesIO(b"content"))
print(json.dumps(True))
"""
    with answering((200, {"ETag": '"x"'}, "")) as aws:
        assert run(script, aws, function="processor")
        ((method, path, headers),) = aws.requests
    assert (method, path) == ("PUT", "/b/k")
    assert any("checksum" in name.lower() or "trailer" in name.lower() for name in headers)


def test_credentials_of_a_container_are_fetched(run: Run) -> None:
    """As with SnapStart and provisioned concurrency."""
    expiry = (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"AccessKeyId": "AKIDOFCONTAINER", "SecretAccessKey": "s", "Token": "t"}
    with (
        answering((200, {}, json.dumps(given | {"Expiration": expiry}))) as container,
        answering((200, JSON, "{}")) as aws,
    ):
        run(
            PUT,
            aws,
            AWS_ACCESS_KEY_ID=None,
            AWS_SECRET_ACCESS_KEY=None,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{container.url}/credentials",
            AWS_CONTAINER_AUTHORIZATION_TOKEN="let-me-in",
        )
        ((_, path, asked),) = container.requests
        ((_, _, sent),) = aws.requests
    assert path == "/credentials"
    assert asked["Authorization"] == "let-me-in"
    assert "Credential=AKIDOFCONTAINER/" in sent["Authorization"]
    assert sent["X-Amz-Security-Token"] == "t"


def test_a_call_without_credentials_raises_NoCredentialsError(run: Run) -> None:
    script = """
from botocore.exceptions import NoCredentialsError
dynamodb = session.create_client("dynamodb")
try:
    dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
except NoCredentialsError as error:
    print(json.dumps(str(error)))
"""
    missing = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    assert "Unable to locate credentials" in run(
        script, None, AWS_EC2_METADATA_DISABLED="true", **missing
    )


def test_proxies_of_the_environment_are_used(run: Run) -> None:
    with answering((200, JSON, "{}")) as proxy, answering((200, JSON, "{}")) as aws:
        run(PUT, aws, AWS_ENDPOINT_URL="http://dynamodb.invalid", HTTP_PROXY=proxy.url)
        run(PUT, aws, HTTP_PROXY=proxy.url, NO_PROXY="localhost")
        assert [path for _, path, _ in proxy.requests] == ["http://dynamodb.invalid/"]
        assert [path for _, path, _ in aws.requests] == ["/"]


def test_a_certificate_is_checked_against_AWS_CA_BUNDLE_and_host(run: Run, tmp_path: Path) -> None:
    context = certified(tmp_path)
    with answering((200, JSON, "{}"), context=context) as aws:
        assert run(PUT, aws, AWS_CA_BUNDLE=str(tmp_path / "ca.pem")) == 0


def test_an_untrusted_certificate_ends_a_call_before_the_request(run: Run, tmp_path: Path) -> None:
    script = """
from botocore.config import Config
from botocore.exceptions import SSLError
dynamodb = session.create_client("dynamodb", config=Config(retries={"total_max_attempts": 1}))
try:
    dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
except SSLError as error:
    print(json.dumps(str(error)))
"""
    with answering((200, JSON, "{}"), context=certified(tmp_path)) as aws:
        assert "CERTIFICATE_VERIFY_FAILED" in run(script, aws)
        assert aws.requests == []


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "ä" * 64])
def test_a_malformed_host_is_refused_with_its_own_error(run: Run, host: str) -> None:
    script = f"""
from urllib3.exceptions import LocationParseError
from urllib3.util.connection import create_connection
try:
    create_connection(({host!r}, 80), timeout=1)
except LocationParseError as error:
    print(json.dumps(str(error)))
"""
    assert "label empty or too long" in run(script)


def test_a_call_loads_no_reflection_process_terminal_or_thread_pool_modules(run: Run) -> None:
    script = """
unused = (
    "concurrent.futures", "getpass", "inspect", "platform", "subprocess", "xml.etree.ElementTree",
)
"""
    told = PUT + "print(json.dumps([name for name in unused if name in sys.modules]))"
    with answering((200, JSON, "{}")) as aws:
        assert run(script + told, aws) == []


def test_event_handlers_with_keyword_arguments_are_recognised(run: Run) -> None:
    script = """
from functools import partial
from botocore.compat import accepts_kwargs
class Handler:
    def __call__(self, **more): pass
    def method(self, one, **more): pass
    def without(self, one): pass
def plain(one, *, two=2, **more): pass
taking = (plain, Handler(), Handler().method, partial(plain, 1))
refused = (lambda one: None, Handler().without, partial(lambda one: None))
def asked(those):
    return [bool(accepts_kwargs(one)) for one in those]
print(json.dumps([asked(taking), asked(refused)]))
"""
    assert run(script) == [[True] * 4, [False] * 3]


def test_a_profiles_credential_process_is_run(run: Run, tmp_path: Path) -> None:
    answer = json.dumps({"Version": 1, "AccessKeyId": "of-a-process", "SecretAccessKey": "secret"})
    (tmp_path / "answer").write_text(answer)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {tmp_path}/answer\n")
    variables: dict[str, str | None] = {
        "AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_SESSION_TOKEN": None,
        "AWS_CONFIG_FILE": f"{tmp_path}/config",
    }  # fmt: skip
    script = "print(json.dumps(session.get_credentials().access_key))"
    assert run(script, **variables) == "of-a-process"


def test_a_CancelledError_during_a_request_is_raised_unchanged(run: Run) -> None:
    script = """
from concurrent.futures import CancelledError
import botocore.httpsession
def cancelled(*_, **__):
    raise CancelledError
botocore.httpsession.URLLib3Session._get_connection_manager = cancelled
try:
    session.create_client("dynamodb").put_item(TableName="t", Item={"a": {"S": "b"}})
except CancelledError as error:
    print(json.dumps(type(error).__name__))
"""
    assert run(script) == "CancelledError"


def test_certifi_finds_and_reads_its_file(run: Run) -> None:
    script = """
import certifi, ssl
ssl.create_default_context(cafile=certifi.where())
print(json.dumps(certifi.contents().count("BEGIN CERTIFICATE")))
"""
    assert run(script, function="deliver-webhook") > 50


def test_pydantic_models_with_lazily_loaded_types_are_built(run: Run) -> None:
    script = """
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo
from pydantic import BaseModel
class Model(BaseModel):
    amount: Decimal
    part: Fraction | None
    zone: ZoneInfo | None
made = Model.model_validate({"amount": "0.5", "part": "1/3", "zone": "UTC"})
print(json.dumps([str(made.amount), str(made.part), str(made.zone)]))
"""
    for plugins in (None, "0"):
        made = run(script, function="state-manager", PYDANTIC_DISABLE_PLUGINS=plugins)
        assert made == ["0.5", "1/3", "UTC"]


def test_dataclasses_have_their_fields_and_signature(run: Run) -> None:
    script = """
import dataclasses, inspect
@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
@dataclasses.dataclass(frozen=True)
class Further(Point):
    z: int = 3
names = [field.name for field in dataclasses.fields(Further)]
print(json.dumps([names, str(inspect.signature(Point)), dataclasses.asdict(Point(1))]))
"""
    names, signature, values = run(script)
    assert names == ["x", "y", "z"]
    assert signature == "(x: int, y: int = 2) -> None"
    assert values == {"x": 1, "y": 2}


def test_the_x_ray_sdk_sends_a_sampled_call_to_its_daemon(run: Run) -> None:
    script = """
import os, socket
daemon = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
daemon.bind(("127.0.0.1", 0))
daemon.settimeout(10)
os.environ["AWS_XRAY_DAEMON_ADDRESS"] = f"127.0.0.1:{daemon.getsockname()[1]}"
from jobplane_telemetry import Telemetry
dynamodb = session.create_client("dynamodb")
@Telemetry("t").handler
def handler(event, context):
    dynamodb.put_item(TableName="t", Item={"a": {"S": "b"}})
os.environ["_X_AMZN_TRACE_ID"] = (
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
)
handler({}, None)
sent = ""
while "PutItem" not in sent:
    sent += daemon.recv(65536).decode()
print(json.dumps("1-5759e988-bd862e3fe1be46a994272793" in sent))
"""
    with answering((200, JSON, "{}")) as aws:
        assert run(script, aws)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_shipped_module_and_deferred_name_can_be_imported(run: Run, name: str) -> None:
    """Except for optional packages."""
    script = """
import importlib, os, warnings
warnings.simplefilter("ignore")
folder = sys.argv[1]
os.chdir(folder)
modules = []
for place, _, files in os.walk("."):
    for file in files:
        if file.endswith(".pyc") and "__pycache__" not in place:
            parts = os.path.join(place, file[:-4]).split(os.sep)[1:]
            modules.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
shipped = {module.partition(".")[0] for module in modules}
problems = []
# Of AWS's native library, and of Windows.
elsewhere = ("botocore.crt.auth", "dateutil.tz.win", "dateutil.tzwin")
def attempt(what, do):
    if what in elsewhere:
        return None
    try:
        return do()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in shipped:
            problems.append(f"{what}: {error!r}")
    except ImportError as error:
        if "was left out" not in str(error):
            problems.append(f"{what}: {error!r}")
    except Exception as error:
        problems.append(f"{what}: {error!r}")
found = 0
for module in sorted(modules):
    if module.endswith("__main__"):
        continue
    loaded = attempt(module, lambda: importlib.import_module(module))
    cells = getattr(getattr(loaded, "__getattr__", None), "__closure__", None) or ()
    for values in [cell.cell_contents for cell in cells]:
        if isinstance(values, dict) and "__name__" not in values:
            for deferred in values:
                found += 1
                attempt(f"{module}.{deferred}", lambda: getattr(loaded, deferred))
print(json.dumps([len(modules), found, problems]))
"""
    modules, deferred, problems = run(script, function=name)
    assert modules > 100
    assert deferred > 100
    assert problems == []


def certified(folder: Path) -> ssl.SSLContext:
    """A server's context for localhost, and its authority in `ca.pem`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names: Sequence[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ip_address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.pem", folder / "key.pem")
    return context


# IAM has no action for them, or none that the list of cfn-lint knows; members name them.
UNREACHED = 15


def test_nearly_every_service_has_an_action() -> None:
    """By cfn-lint's list of actions."""
    path = Path(str(files("cfnlint"))) / "data" / "AdditionalSpecs" / "Policies.json"
    actions = {name.lower(): of["Actions"] for name, of in json.loads(path.read_text()).items()}
    unreached = []
    for service in iam.services():
        listed = [
            f"{prefix}:{action}"
            for prefix in iam.prefixes_of(service)
            for action in actions.get(prefix, ())
        ]
        grants = Grants("f", tuple(listed))
        operations = iam.operations_of(service)
        if not grants.operations(service, "", operations) - set(CALLED_BY_BOTOCORE["s3"]):
            unreached.append(service)
    assert len(unreached) <= UNREACHED, unreached
