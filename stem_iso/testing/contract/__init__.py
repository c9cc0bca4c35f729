"""Every rule of `stem_iso.brokers.base`, as tests that any broker must pass.

    class TestMyBroker(BrokerContract):
        @pytest.fixture
        def broker(self, tmp_path):
            broker = MyBroker(...)            # empty, with default options
            yield broker
            broker.close()

        def another(self, broker):            # a second handle on the same store, as another process would have;
            return MyBroker(...)              # where it is left out: broker.twin(), or else what broker.url opens

Time passes for real, in short leases and delays, and is waited for with bounds.
"""

from __future__ import annotations

from stem_iso.testing.contract.attempts import AttemptHistory
from stem_iso.testing.contract.canvas import Canvases
from stem_iso.testing.contract.canvas_lifecycle import WholeCanvases
from stem_iso.testing.contract.commands import ActionRules, CommandRules
from stem_iso.testing.contract.dead_letters import DeadLetterRules
from stem_iso.testing.contract.delays import Timing
from stem_iso.testing.contract.edits import Edits, RunNow
from stem_iso.testing.contract.leases import LeaseRules
from stem_iso.testing.contract.limit_lines import Lines
from stem_iso.testing.contract.limit_states import LimitStates
from stem_iso.testing.contract.limits import LimitRules
from stem_iso.testing.contract.lost_workers import LostWorkers
from stem_iso.testing.contract.pauses import PauseRules
from stem_iso.testing.contract.publish import Publishing
from stem_iso.testing.contract.queue_states import QueueStates
from stem_iso.testing.contract.rates import Rates
from stem_iso.testing.contract.results import Waiting
from stem_iso.testing.contract.retry import Retries
from stem_iso.testing.contract.revoke import Revoking
from stem_iso.testing.contract.schedules import ScheduleRules
from stem_iso.testing.contract.settle import Settling
from stem_iso.testing.contract.task_counts import CountRules
from stem_iso.testing.contract.task_lists import TaskLists
from stem_iso.testing.contract.unique import Unique
from stem_iso.testing.contract.workers import Gossip

__all__ = ["BrokerContract"]


class BrokerContract(
    Publishing,
    Timing,
    Settling,
    AttemptHistory,
    LeaseRules,
    LostWorkers,
    Revoking,
    Unique,
    DeadLetterRules,
    Retries,
    Canvases,
    WholeCanvases,
    Waiting,
    Gossip,
    LimitRules,
    Lines,
    Rates,
    ScheduleRules,
    TaskLists,
    RunNow,
    Edits,
    CountRules,
    QueueStates,
    LimitStates,
    PauseRules,
    CommandRules,
    ActionRules,
):
    """Subclass it, and give it a fixture `broker`."""
