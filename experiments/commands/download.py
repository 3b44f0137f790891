"""Fetch a published log from its home, with its checksum; an interrupted download is carried on.

recloop download ml-100k --out data
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from recloop.envs.logs.download import REGISTRY, download


@dataclass(frozen=True)
class DownloadConfig:
    """Fetch a published log."""

    name: tyro.conf.Positional[str]
    """Name of a published log (ml-100k, ml-1m, kuairec), or the http address of a zip file."""
    out: Path = Path("data")
    """Folder where logs lie."""
    mirror: str | None = None
    """Address of a mirror that has the archive."""
    checksum: str | None = None
    """algorithm:hex of the archive, such as sha256:0123...; needed for an address."""
    progress: bool = True
    """Show a progress bar."""


def main(config: DownloadConfig) -> Path:
    """Fetch, and say what may be done with it and what comes next."""
    if config.name in REGISTRY:
        print(f"{config.name}: {REGISTRY[config.name].licence}")
    folder = download(
        config.name, config.out, base_url=config.mirror, known_hash=config.checksum, progress=config.progress
    )
    print(f"in {folder}; next: recloop build {folder} --out worlds/{folder.name}")
    return folder


if __name__ == "__main__":
    from recloop.experiments.cli import run_script

    run_script(DownloadConfig, main)
