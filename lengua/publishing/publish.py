"""`lengua publish`: a run -> a folder, checked in every program that it is for -> the Hub, and a Space beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from lengua.data.store import is_store, open_store
from lengua.models.checkpoints import NOTE_FILE, PROCESSOR_FILES, find_model
from lengua.options import PublishOptions
from lengua.publishing import parity
from lengua.publishing.export import EXPORTERS
from lengua.publishing.model_card import CardSources, build_model_card, find_run
from lengua.publishing.parity import clips_for
from lengua.publishing.space import stage_space
from lengua.publishing.upload import MODEL, SPACE, PushedFolder, foreign_files, push, require_may_push
from lengua.runtime.errors import LenguaError, RequestError
from lengua.runtime.files import cache_dir, replacing, write_bytes
from lengua.runtime.progress import Progress, Watch, unwatched

COMPANION_FILES = ("config.json", "generation_config.json", NOTE_FILE, *PROCESSOR_FILES)
"""What an export has at its top even without "hf": by these a folder is known as a model, and how to decode with it."""


@dataclass(frozen=True)
class PublishResult:
    """What was written, and where it went."""

    path: Path
    formats: tuple[str, ...]
    bytes: int
    parity: list[dict] | None = None
    """What every program made of the same clips; None where that was left out."""
    repo: str | None = None
    revision: str | None = None
    tag: str | None = None
    url: str | None = None
    private: bool | None = None
    space: str | None = None
    """Address of the Space."""
    space_path: Path | None = None
    """The folder that it was staged in."""


def publish(options: PublishOptions, watch: Watch = unwatched) -> PublishResult:
    """Write the folder, whole or not at all; then, where it is asked for, put it on the Hub, and a Space.

    Raises:
        RequestError: no such run, an output folder that holds other things, or a push that may not be.
        LenguaError: a program says other words than the others, another process writes this folder, or the Hub is in
            trouble.
    """
    folder, _ = find_model(options.run)
    _require_sense(options, folder)
    with _locked(options.out):
        found = _export(options, folder, watch)
        pushed = _push_model(options, watch) if options.to else None
        space = _push_space(options, watch) if options.space else None
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    return PublishResult(
        options.out,
        tuple(options.formats),
        size,
        found and found.rows,
        *((pushed.repo, pushed.revision, pushed.tag, pushed.url, pushed.private) if pushed else (None,) * 5),
        space and space.url,
        _space_folder(options) if options.space else None,
    )


def _require_sense(options: PublishOptions, folder: Path) -> None:
    """Refuse what would fail in the end, before anything is built."""
    if not options.formats:
        raise RequestError("at least one format", "none", f"name some of {', '.join(EXPORTERS)}")
    if options.tag is not None and not options.to:
        raise RequestError("a repository to tag", "--tag without --to", "add --to owner/name")
    if options.space and not _model_of_space(options):
        do = "add --to owner/name, or name a model of the Hub instead of a run"
        raise RequestError("a model of the Hub for the Space", f"{options.run}, which is on this machine only", do)
    out = options.out.resolve()
    if out == folder.resolve() or folder.resolve().is_relative_to(out):
        raise RequestError("another folder than the model's own", f"{options.out}", "name another --out")
    for path, kind in ((options.out, MODEL), (_space_folder(options), SPACE)):
        if (kind is MODEL or options.space) and (others := _foreign_entries(path, kind)):
            found = f"{path} with other things ({', '.join(others[:3])})"
            raise RequestError("a new folder or an earlier export", found, "name another --out")
    for repo, kind, tag in ((options.to, MODEL, options.tag), (options.space, SPACE, None)):
        if repo:
            require_may_push(repo, kind, options.private, tag)


def _foreign_entries(path: Path, kind) -> list[str]:
    """Return what a folder holds that is not ours to replace."""
    if path.exists() and not path.is_dir():
        return [path.name]
    return foreign_files(path, kind) if path.is_dir() else []


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes from a folder, from its first file until it is on the Hub."""
    locks = cache_dir() / "locks"  # not beside the folder, where the file of the lock would be left behind
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{sha256(str(out.resolve()).encode()).hexdigest()[:16]}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        do = "wait for it, or name another --out"
        raise LenguaError(f"{out} for this process alone", "another one that publishes to it", do) from error
    try:
        yield
    finally:
        lock.release()


def _export(options: PublishOptions, folder: Path, watch: Watch) -> parity.Parity | None:
    """Write the folder, compare what programs say, write the card; nothing is left of it if one of them fails."""
    parity.require_programs_installed(options.formats if options.parity_clips > 0 else ())
    origin = CardSources(folder, find_run(options.run))
    language = origin.note.language or _language_of_clips(options)
    clips = clips_for(options.run, options, language)
    with replacing(options.out) as fresh:
        for done, name in enumerate(options.formats):
            watch(Progress("publishing", done, len(options.formats), "formats", name))
            EXPORTERS[name](folder, fresh)
        watch(Progress("publishing", len(options.formats), len(options.formats), "formats"))
        _add_companions(folder, fresh)
        found = parity.check_parity(fresh, options.formats, clips, language, folder, watch) if clips else None
        if found:
            found.write(fresh)
        text = build_model_card(
            origin, options.to or str(options.out), tuple(options.formats), bool(options.to), found and found.as_json()
        )
        write_bytes(fresh / "README.md", text.encode())
    return found


def _language_of_clips(options: PublishOptions) -> str:
    """Return the language to decode an untouched model in: that of the store, or what it was made for first."""
    store = Path(options.clips or "")
    return open_store(store).language if is_store(store) else "en"


def _add_companions(folder: Path, out: Path) -> None:
    for name in COMPANION_FILES:
        if (folder / name).is_file() and not (out / name).exists():
            write_bytes(out / name, (folder / name).read_bytes())


def _push_model(options: PublishOptions, watch: Watch) -> PushedFolder:
    message = f"{', '.join(options.formats)}, published by lengua"
    return push(options.out, options.to, MODEL, options.private, options.tag, message, watch)


def _push_space(options: PublishOptions, watch: Watch) -> PushedFolder:
    folder = stage_space(_space_folder(options), _model_of_space(options))
    message = f"The app, with {_model_of_space(options)}"
    return push(folder, options.space, SPACE, options.private, None, message, watch)


def _space_folder(options: PublishOptions) -> Path:
    return options.out.with_name(f"{options.out.name}-space")


def _model_of_space(options: PublishOptions) -> str | None:
    """Return the model of the Hub that a Space is for: the one just pushed, or the one that was named."""
    on_hub = options.run.count("/") == 1 and not Path(options.run).exists()
    return options.to or (options.run if on_hub else None)
