"""Cores of one's own: chosen well, claimed once on the whole machine, and given back whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stem_iso.isolate.engine.cpus import VARIABLE, Cores, choose, cpu_list, siblings_of
from stem_iso.isolate.machine import quota
from stem_iso.outcome import Crashed, Failed, StopReason, TimedOut
from tests.isolate.calling import Calls, Recorder, eventually

ALLOWED = sorted(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account of this test's own: the machine's is used by whatever else runs here."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cores"))
    return tmp_path / "cores"


# Four cores of two threads each, numbered as machines do: the second threads after all first ones, or each beside its first.
APART = {cpu: frozenset({cpu % 4, cpu % 4 + 4}) for cpu in range(8)}
BESIDE = {cpu: frozenset({cpu & ~1, cpu | 1}) for cpu in range(8)}


# -- the choice ------------------------------------------------------------------------------------------------------------------------

cpus = st.sets(st.integers(0, 7))


@given(st.integers(1, 8), cpus, cpus, st.sampled_from([APART, BESIDE]))
def test_the_cores_chosen_are_free_and_as_many_as_asked_for_or_none(count: int, allowed: set[int], taken: set[int], siblings) -> None:
    chosen = choose(count, allowed, taken, siblings)
    free = allowed - taken
    assert set(chosen) <= free
    assert len(chosen) == len(set(chosen)) == (count if len(free) >= count else 0)


@given(st.integers(1, 8), cpus, cpus, st.sampled_from([APART, BESIDE]))
@example(2, set(range(8)), set(), BESIDE)
@example(3, set(range(8)), {4}, BESIDE)
def test_a_whole_core_comes_before_a_thread_beside_somebody(count: int, allowed: set[int], taken: set[int], siblings) -> None:
    chosen = set(choose(count, allowed, taken, siblings))
    left = allowed - taken - chosen
    if any(siblings[cpu] & taken for cpu in chosen):
        assert all(siblings[cpu] & taken for cpu in left), "beside a stranger, while a core without one was free"
    if any(siblings[cpu] & (chosen - {cpu}) for cpu in chosen):
        assert all(siblings[cpu] & (taken | chosen) for cpu in left), "two threads of one core, while another core was all free"


def test_lists_of_cores_are_read_as_the_kernel_writes_them() -> None:
    assert cpu_list("0-3,8\n") == {0, 1, 2, 3, 8}
    assert cpu_list("\n") == frozenset()
    assert all(cpu in group for cpu, group in siblings_of(ALLOWED).items())


@pytest.mark.parametrize(
    ("files", "membership", "granted"),
    [
        ({"jobs/cpu.max": "150000 100000", "cpu.max": "max 100000"}, "0::/jobs\n", 1.5),
        ({"jobs/cpu.max": "max 100000", "cpu.max": "200000 100000"}, "0::/jobs\n", 2.0),
        ({"cpu.max": "300000 100000"}, "0::/of/the/host\n", 3.0),
        ({"cpu/jobs/cpu.cfs_quota_us": "50000", "cpu/jobs/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/jobs\n0::/\n", 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/\n", None),
        ({}, "", None),
    ],
)
def test_a_cgroup_may_grant_less_time_than_there_are_cores(
    tmp_path: Path, files: dict[str, str], membership: str, granted: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert quota(membership, tmp_path) == granted


# -- the account -----------------------------------------------------------------------------------------------------------------------


def test_two_accounts_of_one_machine_never_claim_the_same_core(account: Path) -> None:
    one, other = Cores(range(4), account), Cores(range(4), account)
    one.most = other.most = 4
    first, second = one.claim(2), other.claim(2)
    assert len(first) == len(second) == 2 and not set(first) & set(second)
    assert one.claim(1) == () == other.claim(1)
    one.give_back(first[:1])
    assert other.claim(1) == first[:1]
    other.close()
    assert len(one.claim(3)) == 3


def test_no_more_is_claimed_than_a_cgroup_grants(account: Path) -> None:
    cores = Cores(range(4), account)
    cores.most = 1
    assert cores.claim(2) == ()
    held = cores.claim(1)
    assert len(held) == 1 and cores.claim(1) == ()
    cores.give_back(held)
    assert len(cores.claim(1)) == 1


HOLDER = (
    "import os, sys, time\nfrom stem_iso.isolate.engine.cpus import Cores\n"
    "cores = Cores({0})\nprint(cores.claim(1), flush=True)\nif len(sys.argv) > 1 and os.fork() == 0: os.close(1)\ntime.sleep(60)"
)


@pytest.mark.parametrize("forks", [False, True])
def test_the_cores_of_a_killed_worker_are_free_at_once_also_where_its_program_had_forked(account: Path, forks: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, *["fork"] * forks], stdout=subprocess.PIPE, start_new_session=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"(0,)\n"
        cores = Cores({0}, account)
        assert cores.claim(1) == ()
        if forks:
            eventually(lambda: Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text(), "it does not fork")
        holder.kill()
        holder.wait()
        eventually(lambda: cores.claim(1) == (0,), "still taken")
        try:
            os.killpg(holder.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert not forks


# -- calls -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("boot", [b"", b"thread"])
def test_a_call_and_all_that_it_starts_run_on_cores_of_its_own_and_the_next_call_everywhere(engines, boot: bytes) -> None:
    calls: Calls = engines(boot=boot)
    threads, child, sizes = calls.value("affinity_of_all", cpus=1)
    assert threads == [child] * len(threads) and len(threads) > 1 + (boot == b"thread") and len(child) == 1
    assert sizes == ["1"] * len(sizes)
    assert calls.value("affinity") == ALLOWED


def test_calls_beside_each_other_have_different_cores_and_one_too_many_says_that_it_shares(engines, tmp_path: Path) -> None:
    calls: Calls = engines(size=len(ALLOWED) + 1, spares=0)
    held = [calls.start("affinity_and_wait", str(tmp_path / str(n)), str(tmp_path / "go"), cpus=1) for n in range(len(ALLOWED))]
    eventually(lambda: all((tmp_path / str(n)).exists() for n in range(len(ALLOWED))), "they do not start")
    assert sorted(core for _, cores in calls.engine.pinned() for core in cores) == ALLOWED
    late = calls.start("affinity", cpus=1)
    assert calls.unpickle(late.outcome()) == ALLOWED
    assert any(source == "stem_iso" and "free for this call alone" in text for _, source, text in late.lines)
    (tmp_path / "go").touch()
    assert sorted(calls.unpickle(each.outcome())[0] for each in held) == ALLOWED
    assert calls.engine.pinned() == []


def ends(calls: Calls, name: str, *args: object, **limits: object) -> type:
    return type(calls.run(name, *args, cpus=len(ALLOWED), **limits))


def test_cores_are_given_back_whatever_the_end(calls: Calls, tmp_path: Path) -> None:
    assert ends(calls, "fail", "no") is Failed
    assert ends(calls, "spin", hard=0.1) is TimedOut
    assert ends(calls, "segfault") is Crashed
    stuck: Recorder = calls.start("write_pid_and_spin", str(tmp_path / "pid"), cpus=len(ALLOWED))
    eventually((tmp_path / "pid").exists, "it does not start")
    calls.engine.stop(stuck.call, StopReason.REVOKED)  # type: ignore[attr-defined]
    stuck.outcome()
    assert calls.engine.pinned() == []
    after = calls.start("affinity", cpus=len(ALLOWED))
    assert calls.unpickle(after.outcome()) == ALLOWED and after.lines == []


@pytest.mark.slow
def test_pools_of_native_threads_are_sized_at_the_start_unless_somebody_has_done_so(engines, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Calls = engines(size=1)
    assert calls.value("affinity_of_all")[2] == [str(calls.engine._isolates.cores.most)] * 5
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    sized: Calls = engines(size=1)
    assert sized.value("affinity_of_all")[2] == ["7", None, None, None, None]
