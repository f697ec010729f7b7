"""`deploy measure` and `deploy compare`."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import measure_views as views
from pipeline.cli.options import config_option, json_option, state_folder, state_option, target_option

if TYPE_CHECKING:
    from pipeline.cli.on_device import Place
    from pipeline.config_file import LoadedConfig
    from pipeline.measuring.protocol import Plan
    from pipeline.measuring.records import Comparison, Order, Session
    from pipeline.measuring.subjects import How, Subject
    from pipeline.store import Store
    from targets.device import Device
    from targets.records import Profile, TargetSpec

_UNTRUSTED = 4


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands take."""
    for option in reversed(
        (
            config_option,
            state_option,
            target_option,
            click.option(
                "--mode",
                type=click.Choice(["cool", "sustained"]),
                default="cool",
                show_default=True,
                help="cool: before each process, wait until the device has cooled; sustained: never wait.",
            ),
            click.option("--max-time", metavar="TIME", default="45 s", show_default=True, help="For each device."),
            click.option("--block", metavar="TIME", default="1 s", show_default=True, help="Warm runs of one process."),
            click.option("--threads", type=click.IntRange(1), help="Instead of the target's."),
            click.option("--cpus", metavar="0-3,6", default="", help="Run on these cores only."),
            click.option(
                "--governor", metavar="NAME", default="", help="Set it meanwhile and set it back; needs root there."
            ),
            click.option(
                "--profile",
                is_flag=True,
                help="And where the time goes, op by op, in a run of its own; why int8 is slower.",
            ),
            click.option(
                "--energy",
                is_flag=True,
                help="And joules of an inference, by the target's power meter, in a process of its own: 80 s a model.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Of the order of blocks."),
            click.option(
                "--html",
                type=click.Path(path_type=Path, dir_okay=False),
                help="Write a page with every number and the curve over time.",
            ),
            click.option(
                "--force", is_flag=True, help="Exit code 0 although the numbers are not to be trusted or alike."
            ),
            json_option,
        )
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option(
    "--pause",
    metavar="TIME",
    default="0.5 s",
    show_default=True,
    help="Between runs of the duty-cycled latency; 0: none.",
)
@click.option("--pipeline", "whole", is_flag=True, help="And the declared preprocessing on the device, part by part.")
@click.option("--where-different", is_flag=True, help="Instead: the first layer that answers otherwise than here.")
@click.option("--sweep", is_flag=True, help="Measure every sensible number of threads on every cluster of cores.")
@click.argument("recipe", metavar="RECIPE|FILE.release")
def measure(
    recipe: str,
    sweep: bool,
    whole: bool,
    where_different: bool,
    pause: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a recipe's or a release's model on devices: five processes or more, until the number is narrow.

    Kept with every raw sample and its own doubt. Exit code 4 when something speaks against the numbers: throttling,
    other load, drift, an emulator. Then it says what to do.
    """
    from pipeline.cli import on_device
    from pipeline.cli.fleet import print_failures
    from pipeline.errors import UsageError
    from pipeline.measuring.subjects import is_release
    from pipeline.measuring.sweep import ways
    from targets.errors import DeviceError

    asked = _Asked(options)
    if (whole or where_different) and is_release(recipe):
        raise UsageError("--pipeline and --where-different are of a recipe", hint="name the release's recipe")
    subjects, targets = asked.subjects([recipe]), asked.targets()
    first = subjects(recipe, targets[0])
    if sweep and (asked.energy or asked.profile):
        raise UsageError(
            "--sweep looks at latency alone", hint="leave --energy and --profile out, then measure the best"
        )
    base = asked.float_base(recipe, subjects)
    if where_different:
        on_device.where_different(first, asked.place(), asked.how(), as_json)
        return
    way = on_device.prepared(first, asked.place()) if whole else None
    sessions: list[Session] = []
    wholes: list[on_device.Whole] = []

    def on(spec: "TargetSpec") -> None:
        subject = subjects(recipe, spec)
        for how in ways(asked.facts(spec), asked.how()) if sweep else [asked.how()]:
            plan = asked.plan({"A": subject}, spec, how, pause_s=0.0 if sweep else _seconds("--pause", pause))
            sessions.append(asked.session(spec, plan, (subject, *base)))
            if not as_json and not sweep:
                views.show(sessions[-1])
                asked.show_last_time(sessions[-1])
        if way:
            wholes.append(on_device.whole_way(subject, way, asked.place(), spec, asked.how()))
            if not as_json:
                on_device.show_whole(wholes[-1])

    failed = []
    for spec in targets:
        try:
            on(spec)
        except DeviceError as error:  # the others are measured all the same
            failed.append(error)
    views.write_page(options["html"], sessions)
    if as_json:
        click.echo(views.sessions_json(sessions, wholes))
    elif sweep:
        views.show_sweep(sessions)
    print_failures(failed)
    if failed:
        raise click.exceptions.Exit(failed[0].exit_code)
    _leave(sessions, asked.force)


@click.command()
@_options
@click.option("--margin", metavar="SHARE", help="How much slower B may be.  [default: measure.margin, 3 %]")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
def compare(a: str, b: str, margin: str | None, as_json: bool, **options: Any) -> None:
    """Measure B against A on the same devices, in interleaved blocks: is B slower?

    Each is a recipe, or the file of a release: of that, the model for the device's class is measured.

    Exit code: 0 B is not slower than the margin allows, 1 it is, 4 undecided or not to be trusted.
    """
    from pipeline import codec
    from pipeline.cli.fleet import print_failures
    from pipeline.measuring.protocol import pairs
    from pipeline.measuring.sameness import Incomparable, mismatches
    from pipeline.measuring.statistics import compare as decide
    from pipeline.quantities import parse_quantity

    asked = _Asked(options)
    allowed = asked.margin() if margin is None else parse_quantity(margin, "share")
    subjects = asked.subjects([a, b])
    outcomes: list[tuple[Session, Comparison]] = []
    incomparable = False
    for spec in asked.targets():
        both = subjects(a, spec), subjects(b, spec)
        plan = asked.plan({"A": both[0], "B": both[1]}, spec, asked.how(), pause_s=0.0)
        session = asked.session(spec, plan, both)
        if (unlike := mismatches(session)) and not asked.force:
            print_failures([Incomparable(spec.name, unlike)])
            incomparable = True
            continue
        outcomes.append((session, decide(pairs(session.blocks), allowed)))
        if not as_json:
            views.show_comparison(*outcomes[-1])
    views.write_page(options["html"], [session for session, _ in outcomes])
    if as_json:
        plain = [{"comparison": codec.plain(found), **views.plain_session(session)} for session, found in outcomes]
        click.echo(json.dumps(plain))
    if any(found.verdict == "slower" for _, found in outcomes):
        raise click.exceptions.Exit(1)
    if incomparable or any(found.verdict == "undecided" for _, found in outcomes):
        raise click.exceptions.Exit(_UNTRUSTED)
    _leave([session for session, _ in outcomes], asked.force)


class _Asked:
    """The options that both commands take, read."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self.force, self.energy, self.profile = (bool(options[name]) for name in ("force", "energy", "profile"))
        self._state: Path = state_folder(options["config"], options["state"])

    @property
    def loaded(self) -> "LoadedConfig":
        from pipeline.config_file import load_config

        return load_config(self._options["config"])

    @property
    def store(self) -> "Store":
        from pipeline.store import Store

        return Store(self._state)

    def targets(self) -> "tuple[TargetSpec, ...]":
        from pipeline.cli.fleet import chosen

        return chosen(self._options["config"], self._options["state"], self._options["targets"])

    def margin(self) -> float:
        """What deploy.yaml allows; releases are compared without one as well."""
        from pipeline.config import MeasureConfig

        return self.loaded.config.measure.margin if self._options["config"].exists() else MeasureConfig().margin

    def place(self) -> "Place":
        from pipeline.cli.on_device import Place

        return Place(loaded=self.loaded, store=self.store, state=self._state, targets=self.targets())

    def subjects(self, names: list[str]) -> "Callable[[str, TargetSpec], Subject]":
        """What is meant by a name on a device; all that can be refused without a device is refused here."""
        from pipeline.cli.progress import observer
        from pipeline.errors import UsageError
        from pipeline.measuring.subjects import candidates, is_release, released
        from pipeline.release.bundle import open_bundle
        from pipeline.store import explained_disk_errors

        if len(set(names)) < len(names):
            raise UsageError(f"{names[0]} against itself says nothing", hint="name two")
        bundles = {name: open_bundle(Path(name), None) for name in names if is_release(name)}
        recipes = [name for name in names if name not in bundles]
        made: dict[str, Subject] = {}
        if recipes:
            store = self.store
            with explained_disk_errors(store.root), store.exclusive():
                made = candidates(self.loaded, store, recipes, observer)
        return lambda name, spec: made[name] if name in made else released(bundles[name], spec.device_class)

    def show_last_time(self, session: "Session") -> None:
        """Whether it was measured before, and what would tell how the two compare: never the eye."""
        from pipeline.measuring.log import kept

        model = session.models["A"]
        before = [s for s in kept(self._state, session.target) if model in s.models.values()][:-1]
        if before:
            click.echo(
                f"  measured on {session.target} before, {before[-1].when[:16].replace('T', ' ')} UTC; numbers of two "
                "sessions do not compare: `deploy compare A B` says whether a model or release is slower than another"
            )

    def how(self) -> "How":
        from pipeline.measuring.subjects import How

        return How(
            block_s=_seconds("--block", self._options["block"]),
            threads=self._options["threads"] or 0,
            cpus=_cpus(self._options["cpus"]),
            governor=self._options["governor"],
        )

    def facts(self, spec: "TargetSpec") -> Any:
        from targets.device import connect

        with connect(spec, state=self._state) as device:
            return device.facts()

    def plan(self, subjects: "Mapping[Order, Subject]", spec: "TargetSpec", how: "How", *, pause_s: float) -> "Plan":
        from pipeline.measuring.protocol import Plan

        sustained = self._options["mode"] == "sustained"
        return Plan(
            requests={label: subject.request(spec, how) for label, subject in subjects.items()},
            models={label: subject.name for label, subject in subjects.items()},
            files={label: subject.files() for label, subject in subjects.items()},
            mode=self._options["mode"],
            max_s=_seconds("--max-time", self._options["max_time"]),
            most=10_000 if sustained else 60,
            pause_s=pause_s,
            deadline_s=spec.step_timeout_s,
            seed=self._options["seed"],
            energy=self.loaded.config.energy_windows() if self.energy else None,
        )

    def float_base(self, recipe: str, subjects: "Callable[[str, TargetSpec], Subject]") -> "tuple[Subject, ...]":
        """The float model of the recipe's format, to say why the recipe's is slower; none when no profile is wanted."""
        from pipeline.measuring.subjects import float_base, is_release

        if not self.profile or is_release(recipe) or (name := float_base(recipe)) in ("", recipe):
            return ()
        spec = self.targets()[0]
        return (self.subjects([name])(name, spec),)

    def session(self, spec: "TargetSpec", plan: "Plan", profiled: "Sequence[Subject]") -> "Session":
        """Push what is missing, measure, keep; the profiles are of runs after all others."""
        from pipeline.cli.progress import timed
        from pipeline.measuring.log import keep
        from pipeline.measuring.protocol import run
        from targets.device import connect

        with connect(spec, state=self._state) as device, timed(f"measuring on {spec.name}", plan.lasts_s()) as told:
            for label, files in plan.files.items():
                request = plan.requests[label]
                for role, path in files.items():
                    device.push(path, request.files[role])
            session = replace(
                run(device, plan, lambda block: told()), target=spec.name, activation_bytes=_activations(plan)
            )
            if self.profile:
                session = replace(
                    session, profiles={subject.name: self._profile(device, subject) for subject in profiled}
                )
        keep(self._state, session)
        return session

    def _profile(self, device: "Device", subject: "Subject") -> "Profile":
        request = subject.request(device.spec, self.how())
        for role, path in subject.files().items():
            device.push(path, request.files[role])
        return device.profile(request, device.spec.step_timeout_s, subject.files())


def _activations(plan: "Plan") -> "dict[Order, int]":
    """What the arena has to hold at once, of the models whose shapes say it."""
    from pipeline.errors import InputError
    from pipeline.fit.describe import describe

    found: dict[Order, int] = {}
    for label, request in plan.requests.items():
        if request.format != "pt":
            with suppress(InputError):
                found[label] = describe(model=plan.files[label]["blob"], format=request.format).activation_bytes
    return found


def _leave(sessions: "list[Session]", force: bool) -> None:
    """With 4 when numbers are not to be trusted, or joules were asked for and there are none."""
    from targets.records import Absent

    metered = [measured.energy for session in sessions for measured in session.metered.values()]
    trusted = force or (
        all(session.trusted for session in sessions) and not any(isinstance(energy, Absent) for energy in metered)
    )
    raise click.exceptions.Exit(0 if trusted else _UNTRUSTED)


def _seconds(option: str, text: str) -> float:
    from pipeline.errors import UsageError
    from pipeline.quantities import parse_quantity

    if text.strip() == "0":
        return 0.0
    try:
        return parse_quantity(text, "s")
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}", hint=error.hint) from None


def _cpus(text: str) -> tuple[int, ...]:
    """`0-3,6` as numbers, sorted."""
    from pipeline.errors import UsageError

    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise UsageError(f"--cpus: {part!r} is no core or range of cores", hint="write such as 0-3,6")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
