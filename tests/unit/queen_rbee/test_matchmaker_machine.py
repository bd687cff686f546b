"""The matchmaker under random joins, cancels, lists, loads and losses: what must hold after every step."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from typing_extensions import override

from queen_rbee.domain.facts import DeviceFacts, Wish
from queen_rbee.domain.scheduler import SpawnWorker
from queen_rbee.matchmaker import Matchmaker, Place
from queen_rbee.task import Task
from rbee_shared.contracts.workers import WorkerRecord, WorkerState
from rbee_shared.errors import ModelInvalidError
from rbee_shared.narration import Narration

NODE = "localhost"
CPU = DeviceFacts(NODE, "cpu", "cpu", 0, "CPU", 10**10, 10**10)
MODELS = st.sampled_from(["builtin:a", "builtin:b"])
SERVING = {WorkerState.IDLE, WorkerState.BUSY}


def ignore(_: Narration) -> None: ...


class Line(RuleBasedStateMachine):
    """One node that is always up; workers live in `hive`, the truth that lists report."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.matchmaker = Matchmaker(lambda: (CPU,))
        self.hive: dict[str, WorkerRecord] = {}
        self.blocks: dict[str, object] = {}
        self.line: list[Place] = []
        self.used: dict[str, str] = {}
        self.count = 0

    @rule(target=places, model=MODELS, prepared=st.booleans())
    def join(self, model: str, prepared: bool) -> Place:
        task = Task(Wish(model, NODE), correlation="c", sink=ignore, attached=False)
        block = self.matchmaker.in_line(task)
        place = block.__enter__()
        self.blocks[task.id] = block
        self.line.append(place)
        if prepared:
            self.prepare(place)
        return place

    @rule(place=places)
    def prepare(self, place: Place) -> None:
        """What `placement` does before it waits."""
        place.prepared = True
        self.matchmaker.match()

    @rule(place=consumes(places))
    def leave(self, place: Place) -> None:
        """Done, failed or cancelled: one way out."""
        block = self.blocks.pop(place.task.id)
        self.line.remove(place)
        block.__exit__(None, None, None)  # type: ignore[attr-defined]

    @rule(place=places, slots=st.integers(1, 3), ready=st.booleans())
    def order(self, place: Place, slots: int, ready: bool) -> None:
        """The worker that was to be started is there."""
        if not isinstance(place.placement, SpawnWorker) or place.task.id in self.used:
            return
        self.count += 1
        state = WorkerState.IDLE if ready else WorkerState.LOADING
        record = WorkerRecord(
            id=f"w{self.count}", url="http://127.0.0.1:1", model_ref=place.task.wish.model_ref, backend="cpu",
            device="cpu", state=state, pid=1, started_at=0, last_activity=0, slots_total=slots,
        )  # fmt: skip
        self.hive[record.id] = record
        self.used[place.task.id] = record.id
        self.matchmaker.workers.put(NODE, record, promised_to=place.task.id)
        self.matchmaker.load_done(place.task)

    @rule(place=places)
    def fail_load(self, place: Place) -> None:
        if isinstance(place.placement, SpawnWorker) and place.task.id not in self.used:
            self.used[place.task.id] = "none"
            self.matchmaker.load_failed(place.task, ModelInvalidError("no"))

    @rule(data=st.data(), state=st.sampled_from(list(WorkerState)))
    def change(self, data: st.DataObject, state: WorkerState) -> None:
        if self.hive:
            worker_id = data.draw(st.sampled_from(sorted(self.hive)))
            self.hive[worker_id] = self.hive[worker_id].model_copy(update={"state": state})

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        if self.hive:
            del self.hive[data.draw(st.sampled_from(sorted(self.hive)))]

    @rule()
    def beat(self) -> None:
        self.matchmaker.workers.update(NODE, list(self.hive.values()))

    @rule()
    def lose_node(self) -> None:
        self.hive.clear()
        self.matchmaker.workers.forget_node(NODE, "gone")

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        idle = [facts.id for facts in self.matchmaker.workers.facts() if not facts.in_use]
        if idle:
            self.matchmaker.workers.retire(data.draw(st.sampled_from(idle)))

    @invariant()
    def never_more_promises_than_slots(self) -> None:
        for entry in self.matchmaker.workers._entries.values():
            assert len(entry.promised) <= entry.record.slots_total

    @invariant()
    def promises_and_loads_belong_to_somebody(self) -> None:
        there = {place.task.id for place in self.line}
        for entry in self.matchmaker.workers._entries.values():
            assert entry.promised <= there
        assert set(self.matchmaker._loads) <= there
        assert self.matchmaker._line == self.line

    @invariant()
    def first_in_first_out(self) -> None:
        for model in ("builtin:a", "builtin:b"):
            here = [place for place in self.line if place.asked_for == model and place.error is None]
            got = [place.placement is not None for place in here]
            assert got == sorted(got, reverse=True), "whoever got a worker stands before whoever waits"

    @invariant()
    def nobody_waits_without_a_cause(self) -> None:
        facts = self.matchmaker.workers.facts()
        for place in self.line:
            if place.decided.is_set() or not self._is_first(place):
                continue
            model = place.asked_for
            mine = [worker for worker in facts if worker.model_ref == model]
            assert not any(worker.state in SERVING and worker.slots_free for worker in mine), "a slot is free"
            alive = {WorkerState.STARTING, WorkerState.LOADING, *SERVING}
            loads = [load for load in self.matchmaker._loads.values() if load.model_ref == model]
            assert loads or any(worker.state in alive for worker in mine), "it waits for nothing"

    @invariant()
    def what_is_gone_and_not_counted_on_is_forgotten(self) -> None:
        for entry in self.matchmaker.workers._entries.values():
            assert entry.promised or entry.gone is None

    def _is_first(self, place: Place) -> bool:
        """Prepared, and nobody before it for the same model is unprepared."""
        before = self.line[: self.line.index(place) + 1]
        return all(other.prepared for other in before if other.asked_for == place.asked_for)

    @override
    def teardown(self) -> None:
        for block in list(self.blocks.values()):
            block.__exit__(None, None, None)  # type: ignore[attr-defined]
        assert not self.matchmaker._loads
        assert all(not entry.promised for entry in self.matchmaker.workers._entries.values())


async def test_the_line_holds_whatever_happens() -> None:
    """Everything in it is synchronous; it runs inside an event loop because tasks carry cancel scopes."""
    slow = [HealthCheck.too_slow]
    run_state_machine_as_test(
        Line, settings=settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=slow)
    )
