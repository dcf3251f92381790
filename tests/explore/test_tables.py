"""The explorer's tables answer as moto does."""

import random
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from jobplane.explore.expressions import parts, twins, without
from jobplane.explore.tables import RefusedCallError, Table, Tables

NAME = "things"
SCHEMA: dict[str, Any] = {
    "TableName": NAME,
    "KeySchema": [
        {"AttributeName": "id", "KeyType": "HASH"},
        {"AttributeName": "part", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": kind}
        for name, kind in (("id", "S"), ("part", "S"), ("lane", "S"), ("due", "N"))
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by-lane",
            "KeySchema": [
                {"AttributeName": "lane", "KeyType": "HASH"},
                {"AttributeName": "due", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
        }
    ],
    "BillingMode": "PAY_PER_REQUEST",
}
VALUES = {
    ":n": {"N": "5"}, ":m": {"N": "7.50"}, ":s": {"S": "abc"}, ":one": {"N": "1"},
    ":set": {"SS": ["x", "y"]}, ":list": {"L": [{"S": "abc"}]}, ":type": {"S": "N"},
    ":map": {"M": {"status": {"S": "abc"}}},
}  # fmt: skip
CONDITIONS = (
    "attribute_exists(id)", "attribute_not_exists(id) OR due <= :n", "#s = :s AND due > :one",
    "NOT (#s = :s)", "due BETWEEN :one AND :m", "#s IN (:s, :list)", "attribute_type(due, :type)",
    "begins_with(#s, :s)", "contains(marks, :s)", "nested.#s = :s",
    "(attribute_not_exists(marks) OR size(marks) < :n) AND due <> :n", "due >= :m", "#s <> :s",
)  # fmt: skip
CHANGES = (
    "SET due = :n", "SET due = due + :one, #s = :s", "SET due = if_not_exists(due, :m) - :one",
    "REMOVE due, lane", "ADD due :one", "ADD marks :set", "DELETE marks :set",
    "SET nested = :map REMOVE marks",
    "SET steps = list_append(if_not_exists(steps, :list), :list)", "SET lane = :s ADD due :n",
)  # fmt: skip


@pytest.fixture(scope="module")
def moto() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("dynamodb", region_name="eu-west-1")
        client.create_table(**SCHEMA)
        yield client


def used(*texts: str) -> dict[str, Any]:
    """The names and values that expressions use; DynamoDB refuses others."""
    text = " ".join(texts)
    found: dict[str, Any] = {}
    words = text.replace(",", " ").replace("(", " ").replace(")", " ").split()
    values = {name: VALUES[name] for name in VALUES if name in words}
    if values:
        found["ExpressionAttributeValues"] = values
    if "#s" in text:
        found["ExpressionAttributeNames"] = {"#s": "status"}
    return found


def drawn(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """An operation as the functions make them."""
    key = {"id": {"S": chance.choice("ab")}, "part": {"S": chance.choice("12")}}
    table = {"TableName": NAME}
    condition = chance.choice(CONDITIONS)
    failing = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    match chance.randrange(7):
        case 0:
            more = {
                "status": {"S": "abc"}, "due": {"N": str(chance.randrange(9))},
                "lane": {"S": "abc"}, "marks": {"SS": ["abc", "x"]},
            }  # fmt: skip
            item = key | {name: more[name] for name in more if chance.random() < 0.6}
            return "PutItem", table | {"Item": item}
        case 1:
            return "GetItem", table | {"Key": key}
        case 2:
            return "DeleteItem", table | {
                "Key": key, "ConditionExpression": condition, "ReturnValues": "ALL_OLD",
                **failing, **used(condition),
            }  # fmt: skip
        case 3:
            query = "lane = :s AND due <= :m"
            return "Query", table | {
                "IndexName": "by-lane", "KeyConditionExpression": query, **used(query),
            }  # fmt: skip
        case 4:
            update = {
                "Update": table | {"Key": key, "UpdateExpression": "ADD hits :one",
                                   "ConditionExpression": condition,
                                   **used(condition, "ADD hits :one")},
            }  # fmt: skip
            put = {"Put": table | {"Item": key | {"id": {"S": "c"}},
                                   "ConditionExpression": "attribute_not_exists(id)"}}  # fmt: skip
            return "TransactWriteItems", {"TransactItems": [update, put]}
    change = chance.choice(CHANGES)
    return "UpdateItem", table | {
        "Key": key, "UpdateExpression": change, "ConditionExpression": condition,
        "ReturnValues": "ALL_NEW", **failing, **used(change, condition),
    }  # fmt: skip


def normal(value: Any) -> Any:
    """An answer without what does not matter: the order of sets, how a number is written."""
    if isinstance(value, dict):
        if value.keys() == {"SS"}:
            return {"SS": sorted(value["SS"])}
        if value.keys() == {"N"}:
            return {"N": float(value["N"])}
        return {name: normal(part) for name, part in value.items() if name != "ResponseMetadata"}
    return [normal(part) for part in value] if isinstance(value, list) else value


def of_moto(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
    method = {
        "PutItem": "put_item", "GetItem": "get_item", "DeleteItem": "delete_item",
        "Query": "query", "TransactWriteItems": "transact_write_items",
        "UpdateItem": "update_item",
    }[operation]  # fmt: skip
    try:
        answer = getattr(client, method)(**parameters)
    except ClientError as error:
        reasons = [part["Code"] for part in error.response.get("CancellationReasons", [])]
        return error.response["Error"]["Code"], normal(error.response.get("Item")), reasons
    ignored = {"ScannedCount", "ConsumedCapacity", "ItemCollectionMetrics"}
    return {name: part for name, part in normal(answer).items() if name not in ignored}


def of_tables(tables: Tables, operation: str, parameters: dict[str, Any]) -> Any:
    try:
        return normal(tables.perform(operation, parameters))
    except RefusedCallError as error:
        reasons = [part["Code"] for part in error.answer.get("CancellationReasons", [])]
        return error.code, normal(error.answer.get("Item")), reasons


@pytest.mark.parametrize("seed", range(8))
def test_operations_answer_as_those_of_moto(moto: Any, seed: int) -> None:
    """A few hundred random ones, with the forms of expressions that the functions use."""
    chance, tables = random.Random(seed), Tables([Table.declared(SCHEMA)])
    for item in moto.scan(TableName=NAME)["Items"]:
        moto.delete_item(TableName=NAME, Key={name: item[name] for name in ("id", "part")})
    for _ in range(120):
        operation, parameters = drawn(chance)
        expected = of_moto(moto, operation, parameters)
        assert of_tables(tables, operation, parameters) == expected, (operation, parameters)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a AND b", [[0], [1]]),
        ("a AND (b OR c)", [[0], [1, 2]]),
        ("a OR (b AND c)", [[0], [1], [2]]),
        ("a AND NOT (b AND c)", [[0], [1, 2]]),
        ("NOT (a OR b) AND c", [[0], [1], [2]]),
    ],
)
def test_parts_without_which_a_condition_is_the_same(text: str, expected: list[list[int]]) -> None:
    """By all items: parts of one group, and of no other."""
    written = re.sub(r"\b([abc])\b", r"attribute_exists(\1)", text)
    count = len(parts(written))
    items = [{n: {"S": ""} for n in names} for k in range(4) for names in combinations("abc", k)]
    met = [tuple(without(written, {}, n)(item, {}) for item in items) for n in range(count)]
    assert twins(written) == expected
    assert all(met[number] == met[group[0]] for group in expected for number in group)
    assert len({met[group[0]] for group in expected}) == len(expected)
