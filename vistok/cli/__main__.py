"""`python -m vistok.cli`: the `vistok` command."""

from vistok.cli import main

if __name__ == "__main__":
    main(prog_name="vistok")
