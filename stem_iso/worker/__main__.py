"""`python -m stem_iso.worker`: reads the command line and becomes the launcher."""

from stem_iso.cli import main_of_worker

if __name__ == "__main__":
    main_of_worker()
