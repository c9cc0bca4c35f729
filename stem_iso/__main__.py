"""`python -m stem_iso`: the commands of `stem-iso`, where its folder is not on the PATH."""

from stem_iso.cli import main_as_module

if __name__ == "__main__":
    main_as_module()
