"""Where the command `rbcedge` and `python -m rbcedge` begin."""

import sys


def run() -> None:
    """Run the command line; Ctrl-C while it is still being loaded ends as quietly as later."""
    try:
        from rbcedge.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("rbcedge: interrupted.\n")
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
