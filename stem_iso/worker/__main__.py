"""`python -m stem_iso.worker`: reads the command line and becomes the launcher."""

from stem_iso.cli.root import run_worker_alone

if __name__ == "__main__":
    run_worker_alone()
