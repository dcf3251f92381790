"""What IAM authorises: one table for `check` and the cut SDK, of names that botocore has."""

import pytest
from botocore import xform_name

from jobplane import iam
from jobplane.rules.permissions import iam_prefix, is_service, operation
from jobplane.sdk import Grants

KNOWN = [(folder, name) for folder, names in iam.ACTIONS.items() for name in names]


@pytest.mark.parametrize(("folder", "name"), KNOWN, ids="-".join)
def test_botocore_has_the_operation(folder: str, name: str) -> None:
    """A service and an operation of that name."""
    assert is_service(folder)
    assert operation(folder, xform_name(name)) == name


@pytest.mark.parametrize("action", sorted({*iam.IN_SOME_FORMS, *iam.ITEM_ACTIONS.values()}))
def test_botocore_has_what_actions_allow_in_some_forms(action: str) -> None:
    """Each is an operation of one of the folders of the action's service."""
    prefix = action.partition(":")[0]
    for name in iam.ALSO_ALLOWED[action]:
        assert any(operation(f, xform_name(name)) for f in iam.FOLDERS.get(prefix, (prefix,)))


FOLDERS = [(folder, prefix) for prefix, folders in iam.FOLDERS.items() for folder in folders]


@pytest.mark.parametrize(("folder", "prefix"), [*FOLDERS, ("cloudwatch", "cloudwatch")])
def test_folder_and_prefix_lead_to_each_other(folder: str, prefix: str) -> None:
    """What `check` calls an action of a folder is what ships the folder."""
    assert iam_prefix(folder) == prefix
    assert folder in Grants("f", (f"{prefix}:Any",)).services([folder, "another"])


@pytest.mark.parametrize(("folder", "name"), KNOWN, ids="-".join)
def test_what_check_asks_for_ships_the_operation(folder: str, name: str) -> None:
    """Whoever grants what `check` says of an operation has it in the artifact."""
    for action in iam.ACTIONS[folder][name]:
        prefix = action.partition(":")[0]
        assert name in Grants("f", (action,)).operations(folder, prefix, [name, "Another"])
