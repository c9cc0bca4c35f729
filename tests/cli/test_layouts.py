"""Applications whose tasks stand in other modules than they do themselves, as large ones are laid out."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Folder

# An import that takes longer than the tasks may: it belongs to the isolate's start.
SLOW = """
import time
from shop.app import app
time.sleep(0.6)

@app.task(name="{name}", isolate=True, hard_time_limit=0.5)
def {name}(number: int) -> str:
    return f"{{number}} in {{__name__}}"
"""


@pytest.fixture
def shop(folder: Folder) -> Folder:
    (folder.path / "shop").mkdir()
    folder.write("shop/app.py", "from stem_iso import Stem\napp = Stem()\n")
    folder.write("shop/mail.py", SLOW.format(name="mail"))
    folder.write("shop/pics.py", SLOW.format(name="pics"))
    folder.write("shop/tasks.py", "from shop.app import app\nfrom shop import mail, pics\n")
    return folder


@pytest.mark.slow
def test_tasks_beside_their_application_run_and_their_imports_are_not_charged_to_them(shop: Folder) -> None:
    ids = [shop.stem("enqueue", name, "-A", "shop.tasks", "--args", '{"number": 1}').stdout.strip() for name in ("mail", "pics")]
    done = shop.run("-m", "stem_iso.worker", "-A", "shop.tasks", "--burst", "-c", "1", "--spares", "0")
    assert done.returncode == 0, done
    assert [shop.json("result", id)["result"] for id in ids] == ["1 in shop.mail", "1 in shop.pics"]


@pytest.mark.slow
def test_a_hook_beside_its_application_runs_in_the_isolate(shop: Folder) -> None:
    shop.write(
        "shop/mail.py",
        "from shop.app import app\nfrom shop.state import ready\n@app.task(isolate=True, name='mail')\ndef mail(): return ready\n",
    )
    shop.write("shop/state.py", "ready = []\n")
    shop.write(
        "shop/start.py",
        "from shop.app import app\nfrom shop.state import ready\n@app.on_isolate_start\ndef load(): ready.append(__name__)\n",
    )
    shop.write("shop/tasks.py", "from shop.app import app\nfrom shop import mail, start\n")
    id = shop.stem("enqueue", "mail", "-A", "shop.tasks").stdout.strip()
    done = shop.run("-m", "stem_iso.worker", "-A", "shop.tasks", "--burst", "-c", "1", "--spares", "0")
    assert done.returncode == 0, done
    assert shop.json("result", id)["result"] == ["shop.start"]
