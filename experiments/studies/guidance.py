"""What policies do to written-down users after training in users fitted on their log, and what floors cost there.

    python -m recloop.experiments.studies.guidance clickbait retention

As `recloop guidance`, but agents train in users fitted on the log that the world's switching policy wrote, `greedy`
plans on those, and everybody is evaluated in the truth.
"""

from dataclasses import replace

from recloop.experiments.guidance.command import GuidanceConfig, study
from recloop.experiments.provenance import made_by, use_threads
from recloop.experiments.studies.agents import Place


def main(config: GuidanceConfig) -> None:
    """Every truth world that is named."""
    use_threads(1)
    source = made_by()
    for name in config.worlds:
        place = Place.of(name, progress=config.progress)
        world = replace(place.world, name=name).with_simulators(truth=place.users)
        study(world, replace(config, simulator="truth"), source)


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(GuidanceConfig, main)
