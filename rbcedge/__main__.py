"""`python -m rbcedge`."""

from rbcedge.cli import main

if __name__ == "__main__":
    main()
