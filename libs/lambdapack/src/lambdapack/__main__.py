"""`python -m lambdapack`."""

from lambdapack._cli import main

main(prog_name="lambdapack")
