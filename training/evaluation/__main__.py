"""`python -m rbcedge.training.evaluation`: another name of `rbcedge evaluate`; cards go to docs/ by default."""

import sys


def main() -> None:
    """Run `rbcedge evaluate` with the same arguments."""
    from rbcedge.cli import main as rbcedge

    arguments = sys.argv[1:]
    if arguments[:1] == ["card"] and not any(a.startswith("--out") for a in arguments):
        arguments += ["--out", "docs"]
    rbcedge(["evaluate", *arguments])


if __name__ == "__main__":
    main()
