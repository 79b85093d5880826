"""`python -m ppnmf` is the command line `ppnmf`."""

from ppnmf.cli import main

if __name__ == "__main__":
    main()
