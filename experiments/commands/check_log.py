"""Look at a log without building: what was read, what a world of it could claim, and the command that builds it.

recloop check-log clicks.csv --items-table items.csv
"""

from dataclasses import dataclass

from recloop.experiments.log_options import LogOptions
from recloop.experiments.report.log_summary import print_reading
from recloop.experiments.report.tables import wide_console


@dataclass(frozen=True)
class CheckLogConfig(LogOptions):
    """Read a log, print what was found and what it can support, and write nothing."""


def main(config: CheckLogConfig) -> None:
    """Read, clean, and print."""
    console = wide_console()
    log, report = config.read()
    console.print(f"{log.name}, read from {log.source}", style="bold", soft_wrap=True)
    print_reading(log, report, console)
    console.print("\nto build a world of it", style="bold")
    console.print(config.command(log), soft_wrap=True)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(CheckLogConfig, main)
