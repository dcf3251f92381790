"""The job flow matches the functions that it calls: names, errors, permissions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from jobplane.rules import Tree, check
from jobplane.tree.configuration import logical_id
from jobplane.tree.repository import Repository, read_yaml
from tests.workspace.flow_machine import definition, evaluated, expressions

REPOSITORY = Repository.here()
FLOW = definition()
STACK = read_yaml(REPOSITORY.root / "resources" / "job-flow.yml")["Resources"]
SUBSTITUTIONS = STACK["JobFlow"]["Properties"]["DefinitionSubstitutions"]


def all_states(machine: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every state, those inside a Map included."""
    for state in machine["States"].values():
        yield state
        if "ItemProcessor" in state:
            yield from all_states(state["ItemProcessor"])


def function_substitutions() -> dict[str, str]:
    """Substitutions that are functions, not texts, with logical ids."""
    return {
        k: value["Fn::GetAtt"][0] for k, value in SUBSTITUTIONS.items() if "Fn::GetAtt" in value
    }


def statement_on(action: str) -> Any:
    """The resource of an action of the flow's role."""
    (policy,) = STACK["JobFlowRole"]["Properties"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    return next(each["Resource"] for each in statements if each["Action"] == action)


def test_the_flow_names_no_partition() -> None:
    resources = [state["Resource"] for state in all_states(FLOW) if "Resource" in state]
    assert all(resource.startswith("arn:${Partition}:states:::") for resource in resources)
    assert SUBSTITUTIONS["Partition"] == {"Ref": "AWS::Partition"}
    assert not [text for text in expressions(FLOW) if "amazonaws" in text or "arn:aws" in text]


def test_the_flows_role_allows_traces_and_objects_below_jobs() -> None:
    (policy,) = STACK["JobFlowRole"]["Properties"]["Policies"]
    statements = policy["PolicyDocument"]["Statement"]
    everywhere = next(each["Action"] for each in statements if each["Resource"] == "*")
    assert {action[5:] for action in everywhere if action.startswith("xray:")} == {
        "GetSamplingRules", "GetSamplingTargets", "PutTelemetryRecords", "PutTraceSegments",
    }  # fmt: skip
    assert statement_on("s3:PutObject")["Fn::Join"][1][-1] == "/jobs/*"


def test_every_called_function_exists() -> None:
    substitutions = function_substitutions()
    called = [state["Arguments"].get("FunctionName") for state in all_states(FLOW)
              if "Arguments" in state]  # fmt: skip
    assert set(filter(None, called)) == {f"${{{name}}}" for name in substitutions}
    functions = {logical_id(function): function.name for function in REPOSITORY.functions()}
    for name, logical in substitutions.items():
        assert name == functions[logical].title().replace("-", "")


def test_the_flows_role_may_invoke_exactly_the_called_functions() -> None:
    granted = [value["Fn::GetAtt"][0] for value in statement_on("lambda:InvokeFunction")]
    assert granted == list(function_substitutions().values())


def test_every_caught_error_is_raised_by_a_function_worker_or_aws() -> None:
    assert check(Tree(REPOSITORY), ["errors"]) == []


def test_every_next_state_exists_and_every_state_is_reachable() -> None:
    for machine in (FLOW, FLOW["States"]["ProcessAttachments"]["ItemProcessor"]):
        targets = {machine["StartAt"]}
        for state in machine["States"].values():
            targets |= {state[field] for field in ("Next", "Default") if field in state}
            targets |= {each["Next"] for each in state.get("Choices", []) + state.get("Catch", [])}
        assert targets == set(machine["States"])


def test_every_task_after_the_claim_leads_to_a_release() -> None:
    releasing = {"ReleaseAfterFailure", "RecordPreemption", "ReleaseAfterPreemption",
                 "HandleTimeout", "MakeInputQueue"}  # fmt: skip
    for name in ("ProcessAttachments", "OpenInputQueue", "MakeInputQueue", "SendToContainer",
                 "RecordPreemption"):  # fmt: skip
        assert {catch["Next"] for catch in FLOW["States"][name]["Catch"]} <= releasing, name


@pytest.mark.parametrize("name", ["Input", "Holder"])
def test_only_a_missing_queue_is_created(name: str) -> None:
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
    (retrier,) = FLOW["States"]["SendToContainer"]["Retry"]
    assert all(name.startswith("SQS.") for name in retrier["ErrorEquals"])


def test_a_job_sent_again_has_another_token() -> None:
    """Only its message can end it."""
    expression = FLOW["States"]["SendToContainer"]["Arguments"]["MessageDeduplicationId"]
    for count in (0, 1):
        states = {"context": {"State": {"RetryCount": count}}}
        bindings = {"claim": {"claimId": "claim-1"}, "states": states}
        assert evaluated(expression[2:-2], bindings) == f"claim-1-{count}"


def test_equal_message_ids_of_two_workspaces_are_two_follow_ups() -> None:
    """SQS drops the second of two messages with one deduplication id."""
    expression = FLOW["States"]["JoinHolder"]["Arguments"]["MessageDeduplicationId"]
    (hashed,) = re.findall(r'^{% \$hash\((.+), "SHA-256"\) %}$', expression)
    bindings = [{"workspace": f"amelia#{user}", "job": {"messageId": "m-1"}} for user in "ab"]
    assert [evaluated(hashed, each) for each in bindings] == ["amelia#a#m-1", "amelia#b#m-1"]


def test_a_lost_heartbeat_reported_as_States_Timeout_is_recognised() -> None:
    """By the elapsed time."""
    catches = FLOW["States"]["SendToContainer"]["Catch"]
    (catch,) = [catch for catch in catches if catch["Next"] == "HandleTimeout"]
    assert set(catch["ErrorEquals"]) == {"States.Timeout", "States.HeartbeatTimeout"}
    assert "timeoutSeconds" in catch["Assign"]["kind"]
