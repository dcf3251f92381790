"""The job flow matches the functions that it calls: names, errors, permissions."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from jobplane.rules import Tree, check
from jobplane.tree.configuration import logical_id
from jobplane.tree.repository import Repository
from tests.workspace.flow_machine import evaluated, expressions

REPOSITORY = Repository.here()
FLOW: dict[str, Any] = yaml.safe_load(
    (REPOSITORY.root / "resources" / "job-flow.asl.yml").read_text("utf-8")
)
STACK: dict[str, Any] = yaml.safe_load(
    (REPOSITORY.root / "resources" / "job-flow.yml").read_text("utf-8")
)["Resources"]


def all_states(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state by name, those inside a Map included."""
    for name, state in machine["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from all_states(state["ItemProcessor"])


def called(state: dict[str, Any]) -> str | None:
    """The substitution for a state's function."""
    name = state.get("Arguments", {}).get("FunctionName") if "Arguments" in state else None
    return name.removeprefix("${").removesuffix("}") if name else None


def function_substitutions() -> dict[str, Any]:
    """Substitutions that are functions, not texts."""
    substitutions = STACK["JobFlow"]["Properties"]["DefinitionSubstitutions"]
    return {name: value for name, value in substitutions.items() if "Fn::GetAtt" in value}


def test_the_flow_names_no_partition() -> None:
    """Nor a host."""
    resources = [state["Resource"] for _, state in all_states(FLOW) if "Resource" in state]
    assert all(resource.startswith("arn:${Partition}:states:::") for resource in resources)
    substitutions = STACK["JobFlow"]["Properties"]["DefinitionSubstitutions"]
    assert substitutions["Partition"] == {"Ref": "AWS::Partition"}
    assert not [text for text in expressions(FLOW) if "amazonaws" in text or "arn:aws" in text]


def test_the_flows_role_allows_traces_and_objects_below_jobs() -> None:
    (policy,) = STACK["JobFlowRole"]["Properties"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    everywhere = next(each["Action"] for each in statements if each["Resource"] == "*")
    assert {action for action in everywhere if action.startswith("xray:")} == {
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    }
    puts = next(each for each in statements if each["Action"] == "s3:PutObject")
    assert puts["Resource"]["Fn::Join"][1][-1] == "/jobs/*"


def test_every_called_function_exists() -> None:
    """Every substitution is used."""
    substitutions = function_substitutions()
    used = {name for _, state in all_states(FLOW) if (name := called(state))}
    functions = {logical_id(function): function.name for function in REPOSITORY.functions()}

    assert used == set(substitutions)
    for name, value in substitutions.items():
        function = functions[value["Fn::GetAtt"][0]]
        words = "".join(word.capitalize() for word in function.split("-"))
        assert name == words, (name, function)


def test_the_flows_role_may_invoke_exactly_the_called_functions() -> None:
    substitutions = function_substitutions()
    (policy,) = STACK["JobFlowRole"]["Properties"]["Policies"]
    granted = next(
        statement["Resource"]
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "lambda:InvokeFunction"
    )

    assert [value["Fn::GetAtt"][0] for value in granted] == [
        value["Fn::GetAtt"][0] for value in substitutions.values()
    ]


def test_every_caught_error_is_raised_by_a_function_worker_or_aws() -> None:
    assert check(Tree(REPOSITORY), ["errors"]) == []


def test_every_next_state_exists_and_every_state_is_reachable() -> None:
    for machine in (FLOW, FLOW["States"]["ProcessAttachments"]["ItemProcessor"]):
        targets = {machine["StartAt"]}
        for state in machine["States"].values():
            targets |= {state[field] for field in ("Next", "Default") if field in state}
            targets |= {
                entry["Next"] for field in ("Choices", "Catch") for entry in state.get(field, [])
            }
        assert targets == set(machine["States"])


def test_every_task_after_the_claim_leads_to_a_release() -> None:
    """Through a state that releases."""
    releasing = {
        "ReleaseAfterFailure",
        "RecordPreemption",
        "ReleaseAfterPreemption",
        "HandleTimeout",
    }
    for name in (
        "ProcessAttachments",
        "OpenInputQueue",
        "MakeInputQueue",
        "SendToContainer",
        "RecordPreemption",
    ):
        for catch in FLOW["States"][name]["Catch"]:
            making = catch["Next"] == "MakeInputQueue"
            assert making or catch["Next"] in releasing, (name, catch)


@pytest.mark.parametrize("name", ["Input", "Holder"])
def test_only_a_missing_queue_is_created(name: str) -> None:
    """Other errors are retried, and then fail."""
    look_up, make = (FLOW["States"][f"{verb}{name}Queue"] for verb in ("Open", "Make"))
    missing, others = look_up["Catch"]
    assert missing["Next"] == f"Make{name}Queue"
    wait = FLOW["States"][make["Next"]]
    # A new queue may be used after one second.
    assert (wait["Type"], wait["Next"]) == ("Wait", look_up["Next"])
    assert wait["Seconds"] > 1
    assert missing["ErrorEquals"] == ["Sqs.QueueDoesNotExistException"]
    assert others == make["Catch"][0]
    never, again = look_up["Retry"]
    assert (never["ErrorEquals"], never["MaxAttempts"]) == (missing["ErrorEquals"], 0)
    deleted, other = make["Retry"]
    assert again == other
    # SQS makes no queue of a name for a minute after one was deleted, as by `down`.
    assert deleted["ErrorEquals"] == ["Sqs.QueueDeletedRecentlyException"]
    assert deleted["BackoffRate"] == 1
    assert deleted["IntervalSeconds"] * deleted["MaxAttempts"] > 60


def test_a_job_is_sent_again_only_when_sqs_refuses_it() -> None:
    """By SQS's own error names."""
    (retrier,) = FLOW["States"]["SendToContainer"]["Retry"]
    assert all(name.startswith("SQS.") for name in retrier["ErrorEquals"])


def test_a_job_sent_again_has_another_token() -> None:
    """Only its message can end it."""
    expression = FLOW["States"]["SendToContainer"]["Arguments"]["MessageDeduplicationId"]
    first, second = (
        evaluated(
            expression[2:-2],
            {
                "claim": {"claimId": "claim-1"},
                "states": {"context": {"State": {"RetryCount": count}}},
            },
        )
        for count in (0, 1)
    )
    assert (first, second) == ("claim-1-0", "claim-1-1")


def test_a_lost_heartbeat_reported_as_States_Timeout_is_recognised() -> None:
    """By the elapsed time."""
    (catch,) = [
        catch for catch in FLOW["States"]["SendToContainer"]["Catch"]
        if catch["Next"] == "HandleTimeout"
    ]  # fmt: skip
    assert set(catch["ErrorEquals"]) == {"States.Timeout", "States.HeartbeatTimeout"}
    assert "timeoutSeconds" in catch["Assign"]["kind"]
