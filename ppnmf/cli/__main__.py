"""`python -m ppnmf.cli`: the same as `ppnmf`."""

from ppnmf.cli import main

main()
