"""`python -m fuser`: the same as the command `graph-fuser`."""

from fuser.cli import main

if __name__ == "__main__":
    main()
