"""How IAM authorises what botocore calls: actions that are not called as the operation is.

From the pages "Actions, resources, and condition keys" of the Service Authorization Reference and,
for S3, "Required permissions for Amazon S3 API operations".
"""

from collections import defaultdict

# IAM's prefix where it isn't botocore's folder name, and the folders that it stands for.
FOLDERS = {
    "dynamodb": ("dynamodb", "dynamodbstreams"),
    "execute-api": ("apigatewaymanagementapi",),
    "states": ("stepfunctions",),
}
# IAM's prefix of a folder where it isn't the name that the service signs requests with.
PREFIXES = {"cloudwatch": "cloudwatch"}

# What an operation needs, by botocore's folder: all of the actions.
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "apigatewaymanagementapi": {
        "DeleteConnection": ("execute-api:ManageConnections",),
        "GetConnection": ("execute-api:ManageConnections",),
        "PostToConnection": ("execute-api:ManageConnections",),
    },
    "dynamodb": {
        "TransactGetItems": ("dynamodb:GetItem",),
    },
    "lambda": {
        "Invoke": ("lambda:InvokeFunction",),
        "InvokeAsync": ("lambda:InvokeFunction",),
        "InvokeWithResponseStream": ("lambda:InvokeFunction",),
    },
    "s3": {
        "CompleteMultipartUpload": ("s3:PutObject",),
        "CopyObject": ("s3:GetObject", "s3:PutObject"),
        "CreateMultipartUpload": ("s3:PutObject",),
        "DeleteObjects": ("s3:DeleteObject",),
        "HeadBucket": ("s3:ListBucket",),
        "HeadObject": ("s3:GetObject",),
        "ListBuckets": ("s3:ListAllMyBuckets",),
        "ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
        "ListObjectVersions": ("s3:ListBucketVersions",),
        "ListObjects": ("s3:ListBucket",),
        "ListObjectsV2": ("s3:ListBucket",),
        "ListParts": ("s3:ListMultipartUploadParts",),
        "SelectObjectContent": ("s3:GetObject",),
        "UploadPart": ("s3:PutObject",),
        "UploadPartCopy": ("s3:GetObject", "s3:PutObject"),
    },
    "sns": {"PublishBatch": ("sns:Publish",)},
    "sqs": {
        "ChangeMessageVisibilityBatch": ("sqs:ChangeMessageVisibility",),
        "DeleteMessageBatch": ("sqs:DeleteMessage",),
        "SendMessageBatch": ("sqs:SendMessage",),
    },
    "sts": {"GetCallerIdentity": ()},
}
# What a transaction needs, by the kinds of its items.
ITEM_ACTIONS = {
    "ConditionCheck": "dynamodb:ConditionCheckItem",
    "Delete": "dynamodb:DeleteItem",
    "Put": "dynamodb:PutItem",
    "Update": "dynamodb:UpdateItem",
}
# Operations that an action is enough for in some of their forms: of a version, by statement.
IN_SOME_FORMS = {
    "dynamodb:PartiQLDelete": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "dynamodb:PartiQLInsert": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "dynamodb:PartiQLSelect": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "dynamodb:PartiQLUpdate": ("BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"),
    "s3:DeleteObjectVersion": ("DeleteObject", "DeleteObjects"),
    "s3:GetObjectVersion": ("GetObject", "HeadObject"),
}


def _allowed() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for operations in ACTIONS.values():
        for operation, actions in operations.items():
            for action in actions:
                found[action].add(operation)
    for action in ITEM_ACTIONS.values():
        found[action].add("TransactWriteItems")
    for action, names in IN_SOME_FORMS.items():
        found[action].update(names)
    return {action: frozenset(names) for action, names in found.items()}


ALSO_ALLOWED = _allowed()
"""Operations that an action may have a part in, beside the one of its own name."""
