"""The journal, the same over SQLite and over a PostgreSQL server."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_in_memory import release_of
from postgres import postgres

from pipeline.errors import EnvironmentFault, UsageError
from pipeline.rollout.controllers import this_controller
from pipeline.rollout.journal import Journal, open_journal
from pipeline.rollout.records import GateVerdict, Member, Pair
from pipeline.rollout.settings import RolloutConfig
from pipeline.rollout.tables import open_database
from targets.errors import DiskFull

RELEASE = release_of("net", 1)
POLICY = RolloutConfig().policy()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, str]]:
    with postgres() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    if request.param == "sqlite":
        opened = open_journal("", tmp_path)
    else:
        url, password = request.getfixturevalue("server")
        monkeypatch.setenv("PGPASSWORD", password)
        opened = open_journal(url, tmp_path)
    opened.remember(RELEASE, tmp_path / "net.release")
    yield opened
    opened.close()


def members(*names: str) -> list[Member]:
    return [Member(device=name, device_class="default", group="g", state="waiting") for name in names]


def names(request_name: str, count: int) -> list[str]:
    """Of this test's own: the server is shared."""
    return [f"{request_name}-{os.urandom(3).hex()}-{number}" for number in range(count)]


def test_a_rollout_is_as_it_was_written(journal: Journal) -> None:
    a, b = names("d", 2)
    rollout = journal.begin("push", RELEASE, POLICY, members(a, b), allow_downgrade=True)
    journal.start_wave(rollout.id, [a], 1)
    put = Member(
        device=a,
        device_class="default",
        group="g",
        state="confirmed",
        wave=1,
        installed="a" * 64,
        reason="ü − so",
        bytes_on_wire=7,
        pairs=(Pair(before_ms=1.5, after_ms=1.25),),
        boot_id="x",
    )
    put = journal.put(rollout.id, put, desired=RELEASE.id)
    verdict = GateVerdict(passed=True, reasons=(), notes=("so so",))
    journal.judged(rollout.id, 1, verdict)
    assert journal.members(rollout.id)[0] == put and journal.members(rollout.id)[1].state == "waiting"
    assert [(wave.devices, wave.verdict) for wave in journal.waves(rollout.id)] == [((a,), verdict)]
    again = journal.take_over(rollout.id)
    assert again == rollout and again.policy == POLICY and again.allow_downgrade
    assert journal.release(RELEASE.id) == RELEASE and journal.find(RELEASE.id[:6]) == (RELEASE.id,)
    assert journal.known()[a].desired == RELEASE.id and b not in journal.known()
    assert journal.last_parts([a])[a] == (journal.rollouts(release=RELEASE.id)[0], put)
    journal.turn_to(rollout.id, "done")


def test_a_step_is_written_before_it_is_taken_and_its_end_after(journal: Journal) -> None:
    (a,) = names("d", 1)
    rollout = journal.begin("push", RELEASE, POLICY, members(a))
    with journal.step(rollout.id, a, "transfer", RELEASE.id) as detail:
        (begun,) = journal.steps(rollout.id)
        assert begun.ended_s is None and begun.outcome == ""
        detail["bytes_on_wire"] = 5
    with pytest.raises(DiskFull), journal.step(rollout.id, a, "stage", RELEASE.id):
        raise DiskFull("d: full", hint="make room")
    with pytest.raises(KeyboardInterrupt), journal.step(rollout.id, a, "verify", RELEASE.id):
        raise KeyboardInterrupt
    assert [(row.step, row.outcome, row.ended_s is None) for row in journal.steps(rollout.id, a)] == [
        ("transfer", "ok", False),
        ("stage", "disk-full", False),
        ("verify", "", True),  # nobody knows how that ended
    ]
    journal.turn_to(rollout.id, "done")


def test_a_verdict_that_stops_the_rollout_is_one_transaction_with_the_stop(journal: Journal) -> None:
    (a,) = names("d", 1)
    rollout = journal.begin("push", RELEASE, POLICY, members(a))
    journal.judged(rollout.id, 1, GateVerdict(passed=False, reasons=("it fails",)))
    found = next(one for one in journal.rollouts("undoing") if one.id == rollout.id)
    assert found.reason == "wave 1: it fails"
    journal.turn_to(rollout.id, "stopped", found.reason)


def test_two_controllers_do_not_meet_on_a_device(journal: Journal) -> None:
    a, b, c = names("d", 3)
    journal.begin("push", RELEASE, POLICY, members(a, b))
    with pytest.raises(UsageError, match=f"works on {b}"):
        journal.begin("push", RELEASE, POLICY, members(b, c))
    other = journal.begin("push", RELEASE, POLICY, members(c))
    for rollout in journal.rollouts("running"):
        journal.let_go(rollout.id)  # as Ctrl-C does
    later = journal.begin("push", RELEASE, POLICY, members(a))
    states = {rollout.id: rollout.state for rollout in journal.rollouts()}
    assert sorted(states[key] for key in states if key in (other.id, later.id)) == ["running", "running"]
    assert [one.reason for one in journal.rollouts("stopped") if one.reason.startswith("another")]
    journal.turn_to(other.id, "done")
    journal.turn_to(later.id, "done")


def test_a_pinned_device_keeps_what_it_is_to_have(journal: Journal) -> None:
    a, b = names("d", 2)
    journal.pin(a, "default", "c" * 64)
    journal.desire({a: "default", b: "default"}, RELEASE.id, "push")
    known = journal.known()
    assert (known[a].desired, known[a].pinned, known[b].desired) == ("c" * 64, True, RELEASE.id)
    journal.pin(a, "default", "")
    journal.desire({a: "default"}, RELEASE.id, "push")
    assert journal.known()[a].desired == RELEASE.id


def test_many_threads_write_at_once(journal: Journal) -> None:
    devices = names("d", 20)
    rollout = journal.begin("push", RELEASE, POLICY, members(*devices))

    def work(name: str) -> None:
        for _ in range(5):
            with journal.step(rollout.id, name, "check", RELEASE.id):
                journal.seen(name, "default", RELEASE.id, "")

    threads = [threading.Thread(target=work, args=(name,)) for name in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.outcome for row in journal.steps(rollout.id)] == ["ok"] * 100
    journal.turn_to(rollout.id, "done")


def test_what_a_killed_process_has_written_is_there_and_it_is_not_waited_for(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from test_rollout_journal import *\n"
        "j = open_journal('', Path(sys.argv[1])); j.remember(RELEASE, Path('x'))\n"
        "r = j.begin('push', RELEASE, POLICY, members('a'))\n"
        "with j.step(r.id, 'a', 'activate', RELEASE.id): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(here), str(here.parents[1])], check=False)
    assert done.returncode == -9
    journal = open_journal("", tmp_path)
    (rollout,) = journal.rollouts("running")
    assert [(row.step, row.ended_s) for row in journal.steps(rollout.id)] == [("activate", None)]
    assert journal.take_over(rollout.id).owner == this_controller()
    journal.close()


def test_a_password_in_the_url_is_refused_where_others_can_read_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="password") as caught:
        open_database("postgresql://u:secret@127.0.0.1:1/db", tmp_path)
    assert "secret" not in caught.value.message + caught.value.hint
    with pytest.raises(EnvironmentFault) as refused:
        open_database("postgresql://u:secret@127.0.0.1:1/db", tmp_path, trusted=True)
    assert "secret" not in refused.value.message and "127.0.0.1" in refused.value.message
    for url in ("mysql://h/db", "nothing at all"):
        with pytest.raises(UsageError):
            open_database(url, tmp_path)


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    from sqlalchemy import update

    from pipeline.rollout.tables import facts

    database = open_database("", tmp_path)
    with database.write() as connection:
        connection.execute(update(facts).where(facts.c.key == "schema").values(value="2"))
    database.close()
    with pytest.raises(EnvironmentFault, match="schema 2"):
        open_database("", tmp_path)
