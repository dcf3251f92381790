"""`uvx lambdapack build hello --python 3.13 && cd cdk && cdk deploy --app "uv run app.py"`."""

# /// script
# dependencies = ["aws-cdk-lib>=2.200"]
# ///

from pathlib import Path

from aws_cdk import App, Stack
from aws_cdk.aws_lambda import Architecture, Code, Function, Runtime

ARTIFACT = Path(__file__).parents[1] / "dist" / "hello.zip"

app = App()
stack = Stack(app, "Hello")
Function(
    stack,
    "HelloFunction",
    runtime=Runtime.PYTHON_3_13,
    architecture=Architecture.ARM_64,
    handler="hello.handler",
    code=Code.from_asset(str(ARTIFACT)),
)
app.synth()
