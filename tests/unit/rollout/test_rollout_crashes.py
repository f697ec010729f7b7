"""Whatever happens to devices, links and the controller: each device ends proved on one release or the other.

The rollout's own code with its own journal; only the devices are in memory. A controller dies by its operation number,
before or after its effect, and the next one goes on with the journal and the devices as they are then.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from fleet_in_memory import Board, Fuse, Killed, Link, MortalDatabase, digest, release_of, spec_of
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pipeline.rollout.engine import Engine
from pipeline.rollout.fleet import Fleet
from pipeline.rollout.journal import Journal
from pipeline.rollout.records import BAD, Result
from pipeline.rollout.settings import RolloutConfig
from pipeline.rollout.tables import open_database
from targets.records import TargetSpec

# Every transaction waits for the disk, thousands of times here; what a power cut does is not what is tried.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
OLD, NEW = release_of("net", 1), release_of("net", 2)


class Quiet:
    def planned(self, plan: object) -> None: ...
    def changed(self, member: object, step: str) -> None: ...
    def wave(self, number: int, devices: object) -> None: ...
    def judged(self, wave: object) -> None: ...
    def noted(self, text: str) -> None: ...


def controller(folder: Path, boards: dict[str, Board], fuse: Fuse, parallel: int) -> Engine:
    journal = Journal(MortalDatabase(open_database("", folder), fuse))  # type: ignore[arg-type]
    specs = {name: spec_of(board) for name, board in boards.items()}

    def connect(spec: TargetSpec) -> Link:
        return Link(boards[spec.name], spec, fuse)

    fleet = Fleet(specs=specs, connect=connect, parallel=parallel, retry_s=0.001)
    return Engine(journal=journal, fleet=fleet, blobs=lambda name: Path(digest(name)), watching=Quiet())


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, Board]:
    boards = {}
    for number in range(draw(st.integers(1, 6))):
        board = Board(f"d{number}")
        if draw(st.booleans()):
            board.current = board.confirmed = OLD.id
            board.staged[OLD.id] = OLD
            board.floor = {"net": 1}
        kind = draw(st.sampled_from(["good"] * 5 + ["wrong", "wrong-live", "offline"]))
        board.wrong_when_staged = frozenset({NEW.id} if kind == "wrong" else ())
        board.wrong_when_live = frozenset({NEW.id} if kind == "wrong-live" else ())
        board.offline = kind == "offline"
        board.lose_at = set(draw(st.lists(st.integers(1, 40), max_size=3)))
        boards[board.name] = board
    return boards


def carry_out(folder: Path, boards: dict[str, Board], deaths: list[int], on_failure: str, parallel: int) -> Result:
    """As a user does it: push, and the same command again for as long as it dies."""
    policy = RolloutConfig(waves=[1, "50 %", "100 %"], soak=0, on_failure=on_failure, retries=4).policy(  # type: ignore[arg-type,list-item]
        retry_s=0.001
    )
    for at in [*deaths, None]:
        engine = controller(folder, boards, Fuse(at), parallel)
        try:
            engine.journal.remember(OLD, folder / "old")
            engine.journal.remember(NEW, folder / "new")
            if running := engine.journal.rollouts("running", "undoing"):
                return engine.go_on(engine.journal.take_over(running[0].id), NEW)
            if over := engine.journal.rollouts():
                return engine.result(over[0].id)
            return engine.push(engine.plan(NEW, policy, list(boards)), NEW, policy)
        except Killed:
            event("died")
        finally:
            engine.journal.close()
    raise AssertionError("the last controller cannot die")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    boards=fleets(),
    deaths=st.lists(st.integers(1, 400), max_size=4),
    on_failure=st.sampled_from(["stop", "rollback-wave", "rollback-all"]),
    parallel=st.sampled_from([1, 3]),
)
def test_every_device_ends_proved_and_is_accounted_for(
    boards: dict[str, Board], deaths: list[int], on_failure: str, parallel: int
) -> None:
    before = {name: board.current for name, board in boards.items()}
    with TemporaryDirectory(dir=MEMORY) as folder:
        result = carry_out(Path(folder), boards, deaths, on_failure, parallel)
    members = {member.device: member for member in result.members}
    assert members.keys() == boards.keys()
    for name, board in boards.items():
        member = members[name]
        event(member.state)
        assert board.switches.count(NEW.id) <= 1, "an activation was repeated"
        if member.state == "confirmed":
            assert board.current == board.confirmed == NEW.id and NEW.id in board.answered
        elif member.state in ("failed", "pending", "waiting"):
            assert board.current == before[name] and NEW.id not in board.switches
        elif member.state == "reverted":
            assert board.current == before[name] and board.switches == [NEW.id, before[name]]
            assert not before[name] or before[name] in board.answered
        else:
            assert member.state == "lost"
        if member.state not in ("confirmed", "waiting"):
            assert member.reason and member.code
    bad = [member for member in result.members if member.state in BAD and member.code == "answer"]
    if bad:
        assert result.state == "stopped" and "wrong answers" in result.reason
    else:
        assert result.state in ("done", "stopped")
    if result.state == "done":
        assert not [member for member in result.members if member.state == "waiting"]


@settings(max_examples=25, deadline=None)
@given(deaths=st.lists(st.integers(1, 120), max_size=3), count=st.integers(2, 8))
def test_a_wrong_release_touches_the_canary_alone(deaths: list[int], count: int) -> None:
    boards = {f"d{number}": Board(f"d{number}", wrong_when_live=frozenset({NEW.id})) for number in range(count)}
    with TemporaryDirectory(dir=MEMORY) as folder:
        result = carry_out(Path(folder), boards, deaths, "stop", 3)
    assert result.state == "stopped"
    assert [bool(board.switches or board.staged) for board in boards.values()] == [True] + [False] * (count - 1)
    assert [member.state for member in result.members] == ["reverted"] + ["waiting"] * (count - 1)
