"""`python -m jobplane`, where the command's own name is not on PATH."""

from jobplane.cli import main

if __name__ == "__main__":
    main()
