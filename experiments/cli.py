"""The command line. `recloop` lists the commands; `recloop COMMAND --help` tells what one takes.

    recloop demo
    recloop build ../shared/data/ml-100k --out worlds/ml-100k
    recloop inspect worlds/ml-100k
    recloop train worlds/ml-100k --agent ppo --steps 200000 --seed 0 --out policies/ppo
    recloop compare worlds/ml-100k --policies random popularity greedy sasrec ppo --seeds 3 --out runs/ml-100k
    recloop agreement worlds/ml-100k --out runs/agreement
    recloop recommend policies/ppo --history 50,181,258 --k 10

Exit codes: 0 done; 2 bad input or a fault of plugged-in code, said in one line on stderr, after its traceback where
`--debug` is given; 130 and 143 stopped by Ctrl-C and TERM. Nothing heavy is imported before the command is known.
"""

import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

Config = TypeVar("Config")

COMMANDS = {
    "demo": (
        "recloop.experiments.commands.demo:DemoConfig",
        "the built-in truth world: five policies, a planner, a report",
    ),
    "check-log": (
        "recloop.experiments.commands.check_log:CheckLogConfig",
        "look at a log: what was read, what a world could claim, the command that builds it",
    ),
    "build": ("recloop.experiments.commands.build:BuildCommand", "a log of behaviour becomes a world"),
    "inspect": ("recloop.experiments.commands.inspect:InspectConfig", "what a world holds, learned and assumed"),
    "policies": ("recloop.experiments.commands.policies:PoliciesConfig", "policies that are there, by group"),
    "train": ("recloop.experiments.commands.train:TrainConfig", "train one policy in a world"),
    "tune": (
        "recloop.experiments.tuning.command:TuneConfig",
        "search settings of a policy in front of the validation users",
    ),
    "compare": (
        "recloop.experiments.commands.compare:CompareConfig",
        "train, evaluate and compare policies, with a report",
    ),
    "rank": (
        "recloop.experiments.commands.rank:RankConfig",
        "ranking metrics of policies on the held-out part of a world's log",
    ),
    "transfer": (
        "recloop.experiments.transfer.command:TransferConfig",
        "a policy of one world in another, through the texts of its items: zero-shot, few-shot, from scratch",
    ),
    "off-policy": (
        "recloop.experiments.off_policy.command:OffPolicyConfig",
        "what a policy would have earned, from a log that another wrote, or a refusal",
    ),
    "continual": (
        "recloop.experiments.continual.command:ContinualConfig",
        "users drift for some days: how do recommenders keep up, by update rule?",
    ),
    "rectify": (
        "recloop.experiments.off_policy.rectify:RectifyConfig",
        "a few live outcomes and a judge together: intervals that hold whatever the judge is like",
    ),
    "agreement": (
        "recloop.experiments.commands.agreement:AgreementConfig",
        "are policies ranked alike by training users, judges and the truth?",
    ),
    "groups": (
        "recloop.experiments.together.command:GroupsConfig",
        "policies before groups of users: who is served, how evenly, by segment",
    ),
    "recommend": ("recloop.experiments.commands.recommend:RecommendConfig", "ask a saved policy, by external item ids"),
    "guidance": (
        "recloop.experiments.guidance.command:GuidanceConfig",
        "what policies do to their users, and what a floor of liking or diversity costs",
    ),
    "speak": (
        "recloop.experiments.instructions.speak:SpeakConfig",
        "a world whose users say what they want, from any world",
    ),
    "instructions": (
        "recloop.experiments.instructions.command:InstructionsConfig",
        "what hearing users is worth: words, words that change their meaning, questions",
    ),
    "chat": ("recloop.experiments.instructions.chat:ChatConfig", "be the user of a policy, in the terminal"),
    "trajectories": (
        "recloop.experiments.commands.trajectories:TrajectoriesConfig",
        "episodes of a policy, or of the log, as a Minari data set or Parquet",
    ),
    "fidelity": ("recloop.experiments.commands.fidelity:FidelityCommand", "are simulated users like the logged ones?"),
    "download": (
        "recloop.experiments.commands.download:DownloadConfig",
        "fetch a published data set, with its checksum",
    ),
    "graph": (
        "recloop.experiments.commands.graph:GraphConfig",
        "a knowledge graph in a database: build, neighbours, paths",
    ),
    "users": (
        "recloop.experiments.commands.user_commands.users:UsersConfig",
        "user simulators that are there, in a world or installed",
    ),
    "distill": (
        "recloop.experiments.commands.user_commands.distill:DistillConfig",
        "ask a language model about slates within a budget, and fit fast users to its answers",
    ),
    "bench": ("recloop.experiments.bench.bench:BenchCommand", "how fast it is here, beside references in the same run"),
    "check-users": (
        "recloop.experiments.commands.user_commands.check_users:CheckUsersConfig",
        "does a user simulator keep the contract?",
    ),
}
"""Command -> dotted path of its settings (the module's `main` runs them) and what it is for."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The `recloop` command."""
    _replace_what_cannot_be_shown()
    given, debug = _without_debug(arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if given[0] == "--version":
        from importlib.metadata import version

        print(f"recloop {version('recloop')}")
        return
    name = given[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'? " if near else ""
        _fail(f"unknown command '{name}'; {hint}Known: {', '.join(COMMANDS)}")
    # Waiting threads that spin would take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A person's own `my_module:MyPolicy` lies where they stand; behind all else, so that it shadows nothing.
    sys.path.append(os.getcwd())
    module_name, _, settings = COMMANDS[name][0].partition(":")

    def run() -> None:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as missing:
            if missing.name not in ("recloop.experiments.bench", module_name):
                raise
            _fail(f"recloop {name} is not part of the installed package; run it in a checkout (pip install -e .)")
        _parse_and_run(getattr(module, settings), module.main, f"recloop {name}", given[1:])

    guarded(run, debug)


def run_script(settings: type[Config], command: Callable[[Config], Any]) -> None:
    """What a script of this room does when it is run by itself: the same as its command."""
    _replace_what_cannot_be_shown()
    given, debug = _without_debug(None)
    guarded(lambda: _parse_and_run(settings, command, None, given), debug)


def guarded(run: Callable[[], None], debug: bool = False) -> None:
    """Run a command; bad input, a full disk, a fault of plugged-in code or an interruption end it in one line and an
    exit code. With `debug` the traceback stands before the line, of plugged-in code the part that is its own."""
    from recloop.encoders.base.errors import PlugInError, RecloopError
    from recloop.experiments.stopping import Stops, said_on_stop

    with Stops() as stops:
        try:
            run()
        except BaseException as error:
            if stops.stopped_by is not None or isinstance(error, KeyboardInterrupt):
                stops.told = True
                _say(said_on_stop(error))
                sys.exit(stops.exit_code)
            if not isinstance(error, RecloopError):
                from recloop.encoders.base.plug_ins import plug_in_fault

                error = plug_in_fault(error) or error
            if isinstance(error, RecloopError):
                if debug:
                    own = isinstance(error, PlugInError)
                    print(error.__notes__[0] if own else "".join(traceback.format_exception(error)), file=sys.stderr)
                _fail(str(error))
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(141)
            if isinstance(error, OSError):
                where = f"{error.filename}: " if error.filename else ""
                _fail(f"{where}{error.strerror or error}; check the path, its permissions and the free space")
            raise


def _without_debug(arguments: Sequence[str] | None) -> tuple[list[str], bool]:
    """The arguments, of the process where None, without the one flag that all commands share; and whether it stood
    among them."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return [word for word in given if word != "--debug"], "--debug" in given


def _parse_and_run(
    settings: type[Config], command: Callable[[Config], Any], prog: str | None, arguments: list[str]
) -> None:
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(settings, prog=prog, args=arguments, use_underscores=False)
    except SystemExit as stop:
        if stop.code in (0, None):
            more = getattr(settings, "further_help", None)
            if more is not None:
                print(more(arguments))
            raise
        _fail(_one_line(said.getvalue()))
    command(config)


def _one_line(box: str) -> str:
    """What is wrong with the arguments, out of the frame that it is drawn in.

    >>> _one_line("╭─ Value error ─╮\\n│ Error parsing --seeds │\\n│ ──── │\\n│ For help, see --help │\\n╰───╯")
    'Error parsing --seeds; For help, see --help'
    """
    inside = [line.strip("│ \t") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    text = " ".join("\n" if line and not line.strip("─") else line for line in inside)
    return "; ".join(" ".join(part.split()) for part in text.split("\n") if part.strip())


def _fail(message: str) -> NoReturn:
    _say(message)
    sys.exit(2)


def _say(message: str) -> None:
    """One line on stderr, whatever stands in it."""
    from recloop.encoders.base.names import visible

    print(f"recloop: {visible(' '.join(message.split()))}", file=sys.stderr)


def _replace_what_cannot_be_shown() -> None:
    """A file or pipe may take fewer characters than a title has (cp1252 on Windows); the rest becomes `?`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: recloop COMMAND ...",
            "",
            "Logged behaviour as a world of simulated users, in which policies are trained and compared.",
            "",
            *lines,
            "",
            "recloop COMMAND --help tells what a command takes; --debug shows the traceback of what ends it.",
        ]
    )


if __name__ == "__main__":
    main()
