"""The life of a task that always fails, and of one whose worker is killed: every signal as one line of JSON, and a proof at the end.

    python -m entrypoints.retry_task [--broker URL]        without a URL: a SQLite file in a temporary folder
    docker compose -f entrypoints/retry_task/compose.yaml up --build --exit-code-from producer        over Redis, workers in containers

    act 1   prerun ─ retry ─ postrun ─(delay)─ prerun ─ retry ─ … ─ prerun ─ failed ─ postrun           four attempts, then a dead letter
    act 2   prerun ─ SIGKILL of the whole worker ─(takeover)─ received by another ─ … ─ succeeded  one attempt, redelivered
    proof   nothing queued, delayed or running; one dead letter, of act 1; else exit code 1

What decides when something happens
 - The next attempt is due when the retry strategy says: `base * 2 ** attempt`, jitter of a quarter below it. The broker's timings do not
   enter: an idle worker sleeps for `block_time` at most, but no longer than until the next task is due, so a `block_time` of 5 s makes
   nothing late. Each `task_prerun` after a retry says how late it was.
 - A delivery is leased for `default_visibility_timeout` (here 8 s, else 1 min), and a living worker renews it at each third of that, so a
   task may last as long as it likes. A worker that died whole is missed by the others on its machine within two seconds: they look for its
   processes every second. Where nobody sees these (another machine, a container of its own), its lease runs out, and who lives looks for
   such leases every `claim_interval`. Hence

        death → redelivery  <=  2 s on the same machine  ·  <=  visibility + claim_interval elsewhere     (and what the start takes)

   which act 2 checks. It uses up no attempt; the strategy has no say in it. (Had only the worker's core died, its launcher would have put a
   new one in its place, which takes its predecessor's leases at once.)

All lines go to stdout: those of the producer's signals by this program, those of the workers' by each worker. Between processes the order
is that of writing, not of `at`. On a broker of yours all happens in a queue of the demo's own, and the one dead letter stays there to be
looked at: `stem-iso dlq list --broker URL`.

    tasks          what the workers run
    signal_lines   a signal as a line
    workers        the workers, started by command, stopped or killed; or elsewhere, as in compose.yaml
    proof          what must be true at the end
"""
