"""An application as a user has one: with a broker that tests must not touch."""

from __future__ import annotations

from datetime import timedelta

from stem_iso import Stem, TaskContext

app = Stem("redis://nowhere.invalid/0")
mails: list[str] = []


class OutOfStock(Exception):
    pass


@app.task(name="mail", queue="mail")
def mail(to: str) -> str:
    mails.append(to)
    return f"sent to {to}"


@app.task(name="mail.later")
async def mail_later(context: TaskContext, to: str) -> None:
    context.progress(50)
    mail.using(delay=3600).enqueue(to)


@app.task(name="ship", isolate=True, hard_time_limit=10, max_retries=2, retry_strategy=None)
def ship(context: TaskContext, order: int, succeeds_at: int = 0) -> str:
    context.meta["tried"] = context.attempt
    if context.attempt < succeeds_at:
        raise OutOfStock(f"order {order}")
    return f"{order} shipped by attempt {context.attempt}"


@app.task(name="pack")
def pack(parts: list[str]) -> str:
    return " and ".join(parts)


@app.task(name="login", redact=("password",))
def login(user: str, password: str) -> None:
    pass


@app.task(name="impatient")
def impatient() -> str:
    return mail.enqueue("ann").result()


app.schedule("nightly", mail.s("night@example.com"), every=timedelta(hours=1))
