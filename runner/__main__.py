"""`python -m runner`: the command line, where its script is not on the path."""

from runner.cli import main

if __name__ == "__main__":
    main()
