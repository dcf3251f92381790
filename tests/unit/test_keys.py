"""jobplane_keys: names, keys and formats that functions must agree on."""

import base64
import hashlib
import json
import math
import random
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import jobplane_keys as keys
from jobplane_keys import http
from jobplane_models.assemblies import AssemblyDocument

HELLO = hashlib.md5(b"hello", usedforsecurity=False).hexdigest()
WORLD = hashlib.md5(b"world", usedforsecurity=False).hexdigest()
BOTH = [WORLD, HELLO]
WORDS = st.text(min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("form", "md5s", "expected"),
    [
        ("concat", [HELLO], "c9cf19aac6135a50fead9a61058d7c5ad0ba695c88585feb902b1a8a8dd524b1"),
        ("concat", BOTH, "9a8d1e6feddeadc49952000504860f5f4899807faccc2a0cfe35fddcec00d810"),
        ("colon", [HELLO], "0e58a11cac72fcfff5b00fecf86b2dc8e651ed286d1b16fe7bad460bfec2c61f"),
        ("colon", BOTH, "4fd1b168c75dd27144e55bcb576df1627698de8401cd4790b0b21c732679a781"),
    ],
)
def test_older_formulas_give_known_assembly_ids(form: Any, md5s: list[str], expected: str) -> None:
    """Callers compute them."""
    assert keys.assembly_id(md5s, "tpl_basic_audio", "user-123", form=form) == expected
    assert keys.assembly_id(md5s[::-1], "tpl_basic_audio", "user-123", form=form) == expected


def test_the_default_formula_gives_a_known_assembly_id() -> None:
    """A change would orphan every stored document."""
    text = f'["jobplane:1","main","tpl","u1",["{HELLO}"],"{hashlib.sha256(b"{}").hexdigest()}"]'
    assert (
        keys.assembly_id([HELLO.upper()], "tpl", "u1") == hashlib.sha256(text.encode()).hexdigest()
    )


def test_every_input_changes_the_canonical_assembly_id() -> None:
    ids = {
        keys.assembly_id([HELLO], "t", "u"), keys.assembly_id([HELLO], "t", "u", branch="b"),
        keys.assembly_id([HELLO], "t2", "u"), keys.assembly_id([HELLO], "t", "u2"),
        keys.assembly_id([WORLD], "t", "u"), keys.assembly_id([HELLO, HELLO], "t", "u"),
        keys.assembly_id([HELLO], "t", "u", fields={"a": 1}),
        keys.assembly_id([HELLO], "t", "u", fields={"a": "1"}),
    }  # fmt: skip
    assert len(ids) == 8
    fields = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    ids = {keys.assembly_id([HELLO], "t", "u", fields=each) for each in fields}
    assert len(ids) == 1


@given(WORDS, WORDS, WORDS, WORDS)
def test_canonical_assembly_id_is_unambiguous(
    template: str, user: str, other_template: str, other_user: str
) -> None:
    same = (template, user) == (other_template, other_user)
    ids = (
        keys.assembly_id([HELLO], template, user),
        keys.assembly_id([HELLO], other_template, other_user),
    )
    assert (ids[0] == ids[1]) is same


def test_an_unknown_form_of_assembly_ids_is_refused() -> None:
    with pytest.raises(ValueError, match="canonical, concat, colon"):
        keys.assembly_id([HELLO], "t", "u", form="sha1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", HELLO[:-1], HELLO + "0", "g" * 32, "XUFAKrxLKna5cZ2REBfFkg", "é" * 32, "=" * 24]
)
def test_a_malformed_md5_is_refused(text: str) -> None:
    """Else the same file would have another id."""
    with pytest.raises(keys.InvalidMd5Error) as raised:
        keys.normalise_md5(text)
    assert raised.value.text == text


@given(st.binary(min_size=16, max_size=16))
def test_every_spelling_of_a_digest_has_one_form(digest: bytes) -> None:
    text = digest.hex()
    spaced, encoded = f" {text[:16]} {text[16:]}\n", base64.b64encode(digest).decode()
    assert {keys.normalise_md5(each) for each in (text, text.upper(), spaced, encoded)} == {text}


PARTS = st.text(alphabet="a#%25", min_size=1, max_size=6) | WORDS


@given(PARTS, PARTS, PARTS, PARTS)
@example("%23", "a", "#", "a")
@example("%25", "a", "%", "a")
def test_an_owner_key_is_unambiguous(tenant: str, user: str, other: str, other_user: str) -> None:
    assert keys.split_owner_key(keys.owner_key(tenant, user)) == (tenant, user)
    same = (tenant, user) == (other, other_user)
    assert (keys.owner_key(tenant, user) == keys.owner_key(other, other_user)) is same


def test_an_owner_key_keeps_a_mail_address_readable() -> None:
    assert keys.owner_key("acme", "ann@acme.test") == "acme#ann@acme.test"


@given(PARTS, PARTS, st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True))
def test_a_request_key_splits_into_owner_and_id(tenant: str, user: str, request_id: str) -> None:
    owner = keys.owner_key(tenant, user)
    assert keys.split_request_key(keys.request_key(owner, request_id)) == (owner, request_id)


@pytest.mark.parametrize(
    ("split", "key"),
    [(keys.split_owner_key, key) for key in ("", "a", "#a", "a#", "a#b#c")]
    + [(keys.split_request_key, key) for key in ("", "a", "a#b", "a#b#", "a#b#c#d")],
)
def test_a_malformed_key_is_refused(split: Any, key: str) -> None:
    with pytest.raises(ValueError, match="owner key" if split is keys.split_owner_key else "key"):
        split(key)


@given(st.lists(st.integers(0, 2**45), min_size=2, max_size=20))
def test_request_ids_sort_by_time(milliseconds: list[int]) -> None:
    times = sorted(set(milliseconds))
    ids = [keys.new_request_id(each / 1000 + 0.0001) for each in times]
    assert ids == sorted(ids)


def test_a_new_request_id_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(keys.new_request_id(1795342530.25))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == 1795342530250
    assert keys.is_request_id(str(made))
    assert len({keys.new_request_id(1.0) for _ in range(100)}) == 100


@pytest.mark.parametrize("value", ["", "a" * 129, "a b", "a\n", "ä", "a/b", None, 5, b"a"])
def test_a_request_id_is_1_to_128_plain_characters(value: object) -> None:
    assert not keys.is_request_id(value)


def test_ids_of_uploads_and_results_have_their_own_prefixes() -> None:
    assert uuid.UUID(keys.new_upload_id().removeprefix("upload_")).version == 4
    assert uuid.UUID(keys.new_result_id().removeprefix("result_")).version == 4


NUMBERS = st.integers(-(10**37), 10**37) | st.floats(
    allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), VALUES))
def test_a_stored_item_is_read_back_equal(values: dict[str, Any]) -> None:
    assert keys.from_item(keys.to_item(values)) == values


def test_whole_numbers_are_read_as_integers() -> None:
    read = [keys.from_value({"N": text}) for text in ("5", "5.0", "5.2", "1E+2", "-0.0", "1e-7")]
    assert read == [5, 5, 5.2, 100, 0, 1e-7]
    assert [type(each) for each in read] == [int, int, float, int, int, float]


def test_each_json_type_has_its_dynamodb_type() -> None:
    """A boolean is not a number."""
    assert keys.to_item({"a": True, "b": 1, "c": None, "d": ["x"], "e": {"f": 0.5}}) == {
        "a": {"BOOL": True},
        "b": {"N": "1"},
        "c": {"NULL": True},
        "d": {"L": [{"S": "x"}]},
        "e": {"M": {"f": {"N": "0.5"}}},
    }
    assert keys.to_value(keys.ErrorCode.TIMEOUT) == {"S": "TIMEOUT"}
    assert keys.to_value(frozenset({"b", "a"})) == {"SS": ["a", "b"]}
    assert keys.from_value({"SS": ["a"]}) == ["a"]
    assert keys.from_value({"NS": ["1", "2.5"]}) == [1, 2.5]
    assert keys.from_value(keys.to_value(b"\x00")) == "AA=="
    assert keys.from_value({"BS": [b"\x00", "AQ=="]}) == ["AA==", "AQ=="]


def test_a_long_value_is_stored_in_little_room() -> None:
    """Shorter ones are stored as they are."""
    values = {"files": [{"name": "ä.txt", "size": 1.5, "none": None}] * 8000, "parts": [True]}
    item = keys.to_item(keys.packed(values))
    assert (item["files"].keys(), keys.item_size(item) < 20_000) == ({"B"}, True)
    assert item["parts"] == keys.to_value([True])
    assert keys.from_item(item) == values


def test_a_thousand_files_and_the_results_of_three_steps_need_300_kb() -> None:
    """Their ids and hashes are random, so that little else must be stored."""
    chance = random.Random(1)

    def entry(key: str, name: str, **more: Any) -> dict[str, Any]:
        made = {"id": f"{key}_{chance.randbytes(16).hex()}", "name": name, "basename": name[:-4]}
        made |= {"size": chance.randrange(10**7), "mime": "image/jpeg", "field": "file"}
        return made | {"key": f"results/{key}/{name}", "md5hash": chance.randbytes(16).hex()} | more

    names = [f"IMG_{chance.randrange(10**8)}_{chance.randrange(10**6)}.jpg" for _ in range(1000)]
    uploads = [entry("upload", name) for name in names]
    results = {
        step: [
            entry(
                step, one["name"], original_id=one["id"], meta={"sha1": chance.randbytes(20).hex()}
            )
            for one in uploads
        ]
        for step in ("verified", "compressed", "hashed")
    }
    item = keys.to_item(keys.packed({"uploads": uploads, "results": results}))
    assert keys.item_size(item) < 350 * 1024
    assert keys.from_item(item) == {"uploads": uploads, "results": results}


def test_a_value_that_is_too_long_to_be_read_is_not_stored() -> None:
    with pytest.raises(ValueError, match="more than 16777216 bytes"):
        keys.packed({"text": "x" * 16 * 1024 * 1024})


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1}, frozenset(), 1j])
def test_a_value_that_dynamodb_can_not_store_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        keys.to_value(value)
    with pytest.raises(TypeError):
        keys.from_value({"Z": 1})


def test_pages_follow_the_last_key() -> None:
    """Each page begins after the last key of the one before; the caller may change the limit."""
    asked: list[dict[str, Any]] = []

    def query(**request: Any) -> dict[str, Any]:
        asked.append(request)
        more = {"LastEvaluatedKey": {"id": {"N": str(len(asked))}}} if len(asked) < 3 else {}
        return {"Items": [len(asked)], **more}

    request: dict[str, Any] = {"TableName": "t", "Limit": 1}
    read = []
    for page in keys.pages(query, request):
        read += page["Items"]
        request["Limit"] *= 2
    assert read == [1, 2, 3]
    first, second, third = asked
    assert first == {"TableName": "t", "Limit": 1}
    assert second == {"TableName": "t", "Limit": 2, "ExclusiveStartKey": {"id": {"N": "1"}}}
    assert third == {"TableName": "t", "Limit": 4, "ExclusiveStartKey": {"id": {"N": "2"}}}


def test_a_read_item_has_json_values_and_the_wanted_attributes() -> None:
    """It is read consistently; None stands for an item that does not exist."""
    asked: list[dict[str, Any]] = []
    stored = {"id": {"S": "a"}, "n": {"N": "1"}, "other": {"Z": "unreadable"}}

    def get_item(**request: Any) -> dict[str, Any]:
        asked.append(request)
        return {"Item": stored} if request["Key"] == {"id": {"S": "a"}} else {}

    dynamodb = SimpleNamespace(get_item=get_item)
    assert keys.read_item(dynamodb, "t", {"id": "a"}, {"id", "n"}) == {"id": "a", "n": 1}
    assert keys.read_item(dynamodb, "t", {"id": "b"}) is None
    assert asked[0] == {"TableName": "t", "Key": {"id": {"S": "a"}}, "ConsistentRead": True}


def test_queried_items_come_from_all_pages() -> None:
    answers = [
        {"Items": [{"n": {"N": "1"}}], "LastEvaluatedKey": {"n": {"N": "1"}}},
        {"Items": [], "LastEvaluatedKey": {"n": {"N": "2"}}},
        {"Items": [{"n": {"N": "3"}}]},
    ]
    dynamodb = SimpleNamespace(query=lambda **_: answers.pop(0))
    assert list(keys.query_items(dynamodb, TableName="t")) == [{"n": 1}, {"n": 3}]


def test_objects_are_found_in_json_of_unknown_form() -> None:
    assert keys.json_object({"a": 1}) == {"a": 1}
    assert keys.json_objects([{}, 1, {"a": 1}, None]) == [{}, {"a": 1}]
    for value in (None, 1, "text", [1]):
        assert (keys.json_object(value), keys.json_objects(value)) == ({}, [])


def test_a_link_signer_makes_its_client_when_it_is_needed() -> None:
    """The link is for one object, and valid for a limited time."""
    made: list[object] = []

    def presign(method: str, **given: Any) -> str:
        return f"{method} {given}"

    def client() -> Any:
        made.append(None)
        return SimpleNamespace(generate_presigned_url=presign)

    sign = keys.link_signer(client, "files", 60)
    assert made == []
    expected = {"Params": {"Bucket": "files", "Key": "a/b"}, "ExpiresIn": 60}
    assert sign("a/b") == f"get_object {expected}"


def test_a_server_message_has_an_id_only_if_a_request_has_one() -> None:
    """Type, id, content and time; an error says whether to try again."""
    assert keys.server_message("pong", "r", 0) == {
        "type": "pong", "request_id": "r", "timestamp": "1970-01-01T00:00:00.000Z",
    }  # fmt: skip
    error = keys.error_body(keys.ErrorCode.TIMEOUT, "Too late", details=[])
    assert error == {"code": "TIMEOUT", "message": "Too late", "retryable": True, "details": []}
    assert "request_id" not in keys.server_message("error", None, 0, error=error)
    assert not keys.error_body(keys.ErrorCode.CANCELLED, "Cancelled")["retryable"]


def test_an_unknown_template_is_refused_with_the_nearest_one() -> None:
    text = "There is no template 'tumbs'"
    assert keys.unknown_template("tumbs", ["a", "thumbs"]) == f"{text}; did you mean 'thumbs'?"
    assert keys.unknown_template("tumbs", []) == text


@pytest.mark.parametrize("value", [None, 7, "other", []])
def test_a_choice_is_one_of_its_values(value: object) -> None:
    """Without a default it is required; the refusal lists the values."""
    assert keys.checked_choice({"kind": "a"}, "kind", {"b", "a"}) == "a"
    assert keys.checked_choice({}, "kind", {"b", "a"}, "b") == "b"
    with pytest.raises(keys.ValidationError, match="kind: one of a, b is required"):
        keys.checked_choice({"kind": value}, "kind", {"b", "a"}, "b")


def test_a_time_is_utc_with_milliseconds_and_z() -> None:
    assert keys.iso_time(1795342530.25) == "2026-11-22T10:15:30.250Z"
    assert keys.iso_time(0) == "1970-01-01T00:00:00.000Z"
    assert keys.iso_time(0.9994) == "1970-01-01T00:00:00.999Z"


@given(st.integers(0, 4102444800_000))
def test_a_time_is_read_back_to_the_millisecond(milliseconds: int) -> None:
    assert round(keys.parse_iso_time(keys.iso_time(milliseconds / 1000)) * 1000) == milliseconds


def test_a_time_without_offset_is_read_as_utc() -> None:
    """Whatever the machine's time zone is."""
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
    assert keys.parse_iso_time("2026-11-22T12:00:00") == noon
    assert keys.parse_iso_time("2026-11-22T13:00:00+01:00") == noon
    with pytest.raises(ValueError, match="isoformat"):
        keys.parse_iso_time("noon")


def test_completed_cancelled_and_failed_assemblies_are_terminal() -> None:
    names = ("assembly_id", "message", "template_id", "created_at", "updated_at")
    base = dict.fromkeys(names, "a")
    running = ({}, {"ok": "ASSEMBLY_EXECUTING"}, {"error": ""})
    ended = ({"ok": "ASSEMBLY_COMPLETED"}, {"ok": "ASSEMBLY_CANCELED"}, {"error": "TIMEOUT"})
    for state in (*running, *ended):
        assert keys.is_terminal_assembly(state) is (state in ended)
        assert AssemblyDocument.model_validate(base | state).terminal is (state in ended)


def test_a_public_assembly_has_only_public_fields() -> None:
    public = {"assembly_id": "a", "uploads": [{"id": "u"}], "results": {"step": [{"id": "r"}]}}
    item = public | {"rev": 3, "ttl": 5, "uploads": [{"id": "u", "key": "uploads/x"}]}
    item["results"] = {"step": [{"id": "r", "key": "results/x"}]}
    assert keys.public_assembly(item) == public
    assert item["uploads"] == [{"id": "u", "key": "uploads/x"}]


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ({"message": None, "uploads": None, "results": None, "user": None}, {}),
        ({"uploads": {"a": 1}, "results": "none", "user": "u1"}, {"user": {"userId": None}}),
        ({"uploads": ["text", None, {"id": "u"}]}, {"uploads": [{"id": "u"}]}),
        ({"results": {"s": "none", "t": [5, {"key": "k"}]}}, {"results": {"s": [], "t": [{}]}}),
        ({"user": {"userId": "u1", "email": "ann@acme.test"}}, {"user": {"userId": "u1"}}),
    ],
)
def test_a_public_assembly_omits_nulls_and_malformed_files(stored: Any, shown: Any) -> None:
    empty: dict[str, Any] = {"uploads": [], "results": {}}
    expected = {name: empty[name] for name in stored if name in empty and stored[name]} | shown
    assert keys.public_assembly(stored) == expected


def test_public_fields_are_those_of_the_model() -> None:
    """Only `stalled` and `joined` are computed when read."""
    fields = set(AssemblyDocument.model_fields) - {"stalled", "joined"}
    assert fields == set(keys.PUBLIC_ASSEMBLY_FIELDS)


def test_keys_become_signed_links_at_their_paths_alone() -> None:
    """Keys become links at their paths and nowhere else, whatever a step or a value is called."""
    files = [{"key": "a", "meta": {"key": "mine"}}, {"key": None}]
    stored = {
        "results": {"key": files, "meta": [{"key": "b", "url_key": "mine"}]},
        "url_key": "c",
        "key": "mine",
        "other": {"results": {"s": [{"key": "mine"}]}},
    }
    assert keys.sign_links(stored, lambda key: f"https://{key}") == {
        "results": {
            "key": [{"ssl_url": "https://a", "meta": {"key": "mine"}}, {}],
            "meta": [{"ssl_url": "https://b", "url_key": "mine"}],
        },
        "url": "https://c",
        "key": "mine",
        "other": {"results": {"s": [{"key": "mine"}]}},
    }


@pytest.mark.parametrize(
    "value", [None, 1, [], {}, {"results": None}, {"results": []}, {"results": {"s": 1}}, [{}]]
)
def test_a_result_of_another_shape_has_no_links(value: Any) -> None:
    assert keys.sign_links(value, lambda key: f"https://{key}") == value


def test_links_of_an_action_of_your_own() -> None:
    """A path may name any place, and the link is named after the key."""
    stored = {"pages": [{"image_key": "a"}, {"image_key": "b", "text": "image_key"}]}
    assert keys.sign_links(stored, str.upper, ("pages/*/image_key",)) == {
        "pages": [{"image": "A"}, {"image": "B", "text": "image_key"}]
    }


def test_a_stored_result_is_shown_by_its_row() -> None:
    """Its row has the paths; rows of earlier versions say only whether there are links."""
    text = json.dumps({"url_key": "a"})
    assert keys.shown_result({"links": ["url_key"]}, text, str.upper) == {"url": "A"}
    assert keys.shown_result({"links": []}, text, str.upper) == {"url_key": "a"}
    assert keys.shown_result({"has_links": True}, text, str.upper) == {"url": "A"}
    assert keys.shown_result({"has_links": False}, text, str.upper) == {"url_key": "a"}
    assert keys.shown_result({}, text, str.upper) == {"url_key": "a"}


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({}, 0),
        ({"ä": "ü"}, 4),
        ({"n": None}, 2),
        ({"n": True}, 2),
        ({"n": ["a", "b"]}, 1 + 3 + 2 * (1 + 1)),
        ({"n": {"a": "b"}}, 1 + 3 + (1 + 1 + 1)),
        ({"n": frozenset({"a", "bc"})}, 1 + 3),
    ],
)
def test_the_size_of_an_item(values: dict[str, Any], size: int) -> None:
    """By DynamoDB's documented rules."""
    assert keys.item_size(keys.to_item(values)) == size


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_a_number_is_never_larger_than_computed(number: float) -> None:
    """DynamoDB takes a byte for two significant digits, one for the exponent, one for the sign."""
    digits = repr(number).lower().partition("e")[0].replace(".", "").strip("-0")
    assert keys.item_size(keys.to_item({"": number})) >= min(
        21, -(-len(digits) // 2) + 1 + (number < 0)
    )


def test_the_s3_prefix_of_an_owner_is_unique_and_anonymous() -> None:
    assert keys.upload_prefix("t#a") != keys.upload_prefix("t#b")
    assert len(keys.upload_prefix("t#a")) == len("uploads//") + 32
    assert keys.result_prefix("a1", "hash") == "results/a1/hash/"
    assert keys.result_prefix("a1", "hash", "1-2-ab") == "results/a1/1-2-ab/hash/"


def test_the_tables_of_a_stage_share_its_prefix() -> None:
    names = (
        keys.connections_table("j-"),
        keys.requests_table("j-"),
        keys.subscriptions_table("j-"),
    )
    assert names == ("j-connections", "j-requests", "j-subscriptions")
    assert keys.connections_table() == "streamer_connections"


def test_a_request_has_one_of_four_in_flight_shards() -> None:
    """The same in every process."""
    shards = {keys.in_flight_shard(f"t#u#{number}") for number in range(200)}
    assert shards == {"lease-0", "lease-1", "lease-2", "lease-3"}
    pinned = [keys.in_flight_shard(f"t#u#{number}") for number in range(12)]
    assert pinned == [f"lease-{shard}" for shard in "020213132013"]


def test_a_tenants_requests_are_in_its_own_shards() -> None:
    """The first is that of versions with one; no other tenant's id can be a shard's name."""
    assert keys.tenant_shards("acme") == ["acme"]
    assert keys.tenant_shard("acme", "req-1") == "acme"
    shards = keys.tenant_shards("acme", 4)
    assert shards == ["acme", "acme\n1", "acme\n2", "acme\n3"]
    assert {keys.tenant_shard("acme", f"req-{n}", 4) for n in range(100)} == set(shards)
    assert not any(name.isprintable() for name in shards[1:])


def test_ttl_is_whole_seconds() -> None:
    assert keys.ttl_after(10.9, 5) == 15


def test_a_queues_policy_denies_access_without_tls() -> None:
    attributes = {"VisibilityTimeout": "60"}
    guarded = keys.refusing_plain_http(attributes, "https://sqs.eu-west-1.amazonaws.com")
    (statement,) = json.loads(guarded.pop("Policy"))["Statement"]
    assert guarded == attributes
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    plain = keys.refusing_plain_http(attributes, "http://127.0.0.1:4566")
    assert plain == attributes


def test_error_codes_and_retryable_codes_are_those_of_the_protocol() -> None:
    retryable = {
        "TIMEOUT", "RATE_LIMITED", "SERVICE_UNAVAILABLE", "INTERNAL_ERROR", "WORKSPACE_BUSY",
    }  # fmt: skip
    assert {code.value for code in keys.RETRYABLE_CODES} == retryable
    assert {status.value for status in keys.TERMINAL_STATUSES} == {
        "COMPLETED",
        "FAILED",
        "CANCELLED",
    }
    assert all(code.name == code.value for code in keys.ErrorCode)


def test_every_announced_name_exists() -> None:
    assert all(hasattr(keys, name) for name in keys.__all__)


def test_the_import_loads_only_light_standard_modules() -> None:
    """Every function imports this library."""
    code = "import sys, jobplane_keys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "botocore", "asyncio"} & set(done.stdout.split())


@pytest.mark.parametrize("event", [None, "x", 7, [], [{"requestContext": {}}]])
def test_an_input_that_is_not_an_object_is_refused(event: object) -> None:
    with pytest.raises(keys.ValidationError, match="input: an object is required"):
        keys.checked_input(event)


@pytest.mark.parametrize(
    "context",
    [None, [], "c", {}]
    + [{"connectionId": id} for id in (None, 7, "", "a b", "ä", "\n", "\ud800", "c" * 129)],
)
def test_an_event_without_a_connection_id_is_refused(context: object) -> None:
    with pytest.raises(keys.ValidationError) as refused:
        keys.connection_id_of({"requestContext": context})
    assert refused.value.field == "requestContext.connectionId"


def test_the_connection_id_of_an_event_is_returned_unchanged() -> None:
    id = "L0SM9cOFvHcCIhw="
    assert keys.connection_id_of({"requestContext": {"connectionId": id}}) == id


def test_a_refusal_answers_with_json_that_no_cache_keeps() -> None:
    """An unknown caller is not given the reason; the text of an invalid request is bounded."""
    answer = http.UnauthorizedError("expired").answer()
    assert (answer["statusCode"], answer["body"]) == (401, '{"error":"Authentication required"}')
    assert answer["headers"] == {
        "Content-Type": "application/json", "Cache-Control": "no-store",
        "WWW-Authenticate": 'Bearer realm="jobplane"',
    }  # fmt: skip
    invalid = http.InvalidRequestError(*((f"f{number}", "is required") for number in range(9)))
    assert str(invalid) == "; ".join(f"f{number} is required" for number in range(5))
    assert len(invalid.body["problems"]) == 9
    assert http.http_answer(304, None, {"Cache-Control": "private"})["body"] == ""


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (None, "object"), ("", "JSON"), ("[]", "object"), ("{", "JSON"), ("[" * 10**6, "JSON"),
        ("?", "JSON"), ("/w==", "JSON"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused(body: Any, fault: str) -> None:
    event = {"body": body, "isBase64Encoded": body in ("?", "/w==")}
    with pytest.raises(http.InvalidRequestError, match=f"^body must be .*{fault}$"):
        http.json_body(event)
    good = {"body": base64.b64encode(b'{"n":1}').decode(), "isBase64Encoded": True}
    assert http.json_body(good) == {"n": 1}
