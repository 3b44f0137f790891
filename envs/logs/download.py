"""Published logs from their homes: fetched with a checksum, resumed where cut off, unpacked whole or not at all."""

import json
import logging
import shutil
import stat
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pooch

from recloop.encoders.base.errors import LogError, unknown_name
from recloop.encoders.base.progress import progress_bar
from recloop.encoders.base.storage import replacing_folder

TIMEOUT = 30.0
"""Seconds without an answer after which a home counts as unreachable."""
UNPACKED_LIMIT = 20 * 2**30
"""Most bytes that an archive may unpack to."""
CHUNK = 1 << 20
RECEIPT = ".download.json"
"""A file in every downloaded folder: where it came from and the checksum that held."""


@dataclass(frozen=True)
class PublishedLog:
    """A log with a home.

    Args:
        archive: name of the zip file.
        base_url: where it lies.
        known_hash: `algorithm:hex` of the archive, from the log's own home.
        home: the page to read.
        licence: what may be done with it, in a line.
    """

    archive: str
    base_url: str
    known_hash: str
    home: str
    licence: str


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_GROUPLENS_LICENCE = "GroupLens: research only, no redistribution, cite Harper and Konstan 2015; see its README"

REGISTRY: dict[str, PublishedLog] = {
    name: PublishedLog(
        f"{name}.zip", _GROUPLENS, f"md5:{md5}", f"https://grouplens.org/datasets/movielens/{page}/", _GROUPLENS_LICENCE
    )
    for name, page, md5 in (
        ("ml-100k", "100k", "0e33842e24a9c977be4e0107933c0723"),
        ("ml-1m", "1m", "c4d9eecfca2ab87c1945afe126590906"),
        ("ml-10m", "10m", "ce571fd55effeba0271552578f2648bd"),
        ("ml-20m", "20m", "cd245b17a1ae2cc31bb14903e1204af3"),
        ("ml-25m", "25m", "6b51fb2759a8657d3bfcbfc42b592ada"),
    )
} | {
    "kuairec": PublishedLog(
        "KuaiRec.zip",
        "https://zenodo.org/records/18164998/files",
        "md5:261550d472c48eff4990fb13c0e5bcf7",
        "https://zenodo.org/records/18164998",
        "CC BY-SA 4.0: share alike, cite Gao et al. 2022 (KuaiRec); 432 MB",
    )
}
"""The logs that can be fetched by name."""


def download(
    name: str,
    folder: str | Path,
    *,
    base_url: str | None = None,
    known_hash: str | None = None,
    progress: bool = True,
) -> Path:
    """Fetch a log into `folder/name`, unless it is there from an earlier download.

    An archive that was cut off stays beside as `.<archive>.part` and is carried on by the next call. The folder
    appears only when the checksum held and all of it is unpacked.

    Args:
        name: of `REGISTRY`, or the http address of a zip file, which then needs `known_hash`.
        folder: where logs lie.
        base_url: a mirror to fetch the archive from.
        known_hash: `algorithm:hex`, as `sha256:...`; None takes the registry's.
        progress: show a bar.

    Returns:
        The folder of the log, for `read_log`.

    Raises:
        LogError: unknown name, no checksum, no network, wrong checksum, an archive that is broken or reaches
            outside its folder, a folder of that name that was not downloaded.
    """
    published = _published(name, base_url, known_hash)
    target = Path(folder) / published.archive.removesuffix(".zip")
    if target.exists():
        receipt = target / RECEIPT
        if receipt.is_file() and _receipt_hash(receipt) == published.known_hash:
            return target
        raise LogError(f"{target} exists and is not this download; move it away or give another folder")
    try:
        archive = _fetch(published, Path(folder), progress)
        _unpack(archive, target, published)
        archive.unlink()
    except OSError as error:
        raise LogError(f"{target} cannot be written: {error.strerror or error}; free space or rights") from None
    return target


def _published(name: str, base_url: str | None, known_hash: str | None) -> PublishedLog:
    if name.startswith(("http://", "https://")):
        head, _, archive = name.rpartition("/")
        if not archive.endswith(".zip") or archive == ".zip":
            raise LogError(f"{name} does not end in a name like log.zip; only zip archives are understood")
        if known_hash is None:
            raise LogError(f"{name} has no known checksum; give known_hash='sha256:...' from its home")
        known = PublishedLog(archive, base_url or head, known_hash, name, "not known; see its home")
    elif name in REGISTRY:
        own = REGISTRY[name]
        known = PublishedLog(own.archive, base_url or own.base_url, known_hash or own.known_hash, own.home, own.licence)
    else:
        raise LogError(f"{unknown_name('log', name, REGISTRY)}; or give the address of a zip file")
    algorithm, _, digest = known.known_hash.partition(":")
    if algorithm not in ("md5", "sha1", "sha256", "sha512") or not digest:
        raise LogError(f"known_hash '{known.known_hash}' is not algorithm:hex; write for example sha256:0123...")
    return known


def _receipt_hash(path: Path) -> str | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return facts.get("hash") if isinstance(facts, dict) else None


def _fetch(published: PublishedLog, folder: Path, progress: bool) -> Path:
    """The archive in `folder`, its checksum held."""
    url = f"{published.base_url.rstrip('/')}/{published.archive}"
    folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel(logging.WARNING)
    resuming = _Resuming(folder / f".{published.archive}.part", progress)
    try:
        path = pooch.retrieve(url, published.known_hash, fname=published.archive, path=folder, downloader=resuming)
    except ValueError as error:
        resuming.part.unlink(missing_ok=True)
        found = " ".join(str(error).split())
        raise LogError(f"{url}: the checksum is wrong ({found[:300]}); try again, or another base_url") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise LogError(
            f"{url} cannot be fetched ({getattr(error, 'reason', error)}); check the network and call again, "
            f"or fetch it by hand from {published.home}"
        ) from None
    return Path(path)


class _Resuming:
    """A downloader for pooch that carries on where an earlier one was cut off (HTTP ranges)."""

    def __init__(self, part: Path, progress: bool) -> None:
        self.part, self.progress = part, progress

    def __call__(self, url: str, output_file: str | Path, _pooch: Any, check_only: bool = False) -> bool | None:
        if check_only:
            return None
        have = self.part.stat().st_size if self.part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            answer = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code != 416:  # the part is already whole, or not of this file: the checksum tells
                raise
            shutil.move(self.part, output_file)
            return None
        with answer:
            carried_on = have if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            total = carried_on + int(length) if length else None
            with (
                self.part.open("ab" if carried_on else "wb") as file,
                progress_bar(
                    total=total,
                    initial=carried_on,
                    unit="B",
                    unit_scale=True,
                    desc=self.part.name.strip("."),
                    disable=not self.progress,
                ) as bar,
            ):
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    bar.update(len(chunk))
        size = self.part.stat().st_size
        if total is not None and size < total:
            raise ConnectionError(f"cut off after {size} of {total} bytes")
        shutil.move(self.part, output_file)
        return None


def _unpack(archive: Path, target: Path, published: PublishedLog) -> None:
    """Unpack into `target`; a single top folder of the archive is left out."""
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.is_dir()]
            parts = [_safe_parts(archive, member) for member in members]
            size = sum(member.file_size for member in members)
            if size > UNPACKED_LIMIT:
                raise LogError(f"{archive} unpacks to {size} bytes; the limit is {UNPACKED_LIMIT}")
            one_top = len({own[0] for own in parts}) == 1 and all(len(own) > 1 for own in parts)
            with replacing_folder(target) as folder:
                for member, own in zip(members, parts, strict=True):
                    path = folder.joinpath(*own[1:] if one_top else own)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(member) as source, path.open("wb") as file:
                        shutil.copyfileobj(source, file, CHUNK)
                facts = {"hash": published.known_hash, "home": published.home, "licence": published.licence}
                (folder / RECEIPT).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise LogError(f"{archive} is no zip archive that can be read ({error}); remove it and call again") from None


def _safe_parts(archive: Path, member: zipfile.ZipInfo) -> tuple[str, ...]:
    """The path of a member, that stays inside its folder."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    link = stat.S_ISLNK(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0] or link:
        raise LogError(f"{archive}: member '{member.filename[:200]}' reaches outside the folder; do not trust it")
    return path.parts
