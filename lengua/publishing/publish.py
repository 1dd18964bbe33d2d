"""`lengua publish`: a run -> a folder, checked in every program that it is for -> the Hub, and a Space beside it."""

from dataclasses import asdict, dataclass
from pathlib import Path

from lengua.data.store import is_store, open_store
from lengua.models.checkpoints import NOTE_FILE, PROCESSOR_FILES, find_model
from lengua.options import PublishOptions
from lengua.publishing.export import EXPORTERS
from lengua.publishing.joined import joined_losses, measure_joined
from lengua.publishing.model_card import CardSources, build_model_card, find_run
from lengua.publishing.parity import Parity, check_parity, clips_for, require_programs_installed
from lengua.publishing.space import stage_space
from lengua.publishing.upload import MODEL, SPACE, foreign_files, push, require_may_push
from lengua.runtime.errors import RequestError
from lengua.runtime.files import exclusive_folder, replacing, write_bytes
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
    joined_losses: tuple[str, ...] = ()
    """A sentence for every program in which the model loses words of one long recording."""
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
    pushed, space, where = None, None, (options.private, options.tag)
    with exclusive_folder(options.out):
        found = _export(options, folder, watch)
        if options.to:
            message = f"{', '.join(options.formats)}, published by lengua"
            pushed = push(options.out, options.to, MODEL, *where, message, watch)
        if options.space:
            model = _model_of_space(options)
            staged = stage_space(_space_folder(options), model)
            space = push(staged, options.space, SPACE, options.private, None, f"The app, with {model}", watch)
    return PublishResult(
        options.out,
        tuple(options.formats),
        sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file()),
        found and found.rows,
        tuple(joined_losses(found.joined.get("joined", []))) if found else (),
        **(asdict(pushed) if pushed else {}),
        space=space and space.url,
        space_path=_space_folder(options) if space else None,
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
    for path, kind in [(options.out, MODEL), *([(_space_folder(options), SPACE)] if options.space else [])]:
        others = [path.name] if path.exists() and not path.is_dir() else foreign_files(path, kind)
        if others:
            found = f"{path} with other things ({', '.join(others[:3])})"
            raise RequestError("a new folder or an earlier export", found, "name another --out")
    for repo, kind, tag in ((options.to, MODEL, options.tag), (options.space, SPACE, None)):
        if repo:
            require_may_push(repo, kind, options.private, tag)


def _export(options: PublishOptions, folder: Path, watch: Watch) -> Parity | None:
    """Write the folder, compare what programs say, write the card; nothing is left of it if one of them fails."""
    require_programs_installed(options.formats if options.parity_clips > 0 else ())
    origin = CardSources(folder, find_run(options.run))
    language = origin.note.language or _language_of_clips(options)
    clips, formats = clips_for(options.run, options, language), tuple(options.formats)
    with replacing(options.out) as fresh:
        for done, name in enumerate(formats):
            watch(Progress("publishing", done, len(formats), "formats", name))
            EXPORTERS[name](folder, fresh)
        watch(Progress("publishing", len(formats), len(formats), "formats"))
        for name in COMPANION_FILES:
            if (folder / name).is_file() and not (fresh / name).exists():
                write_bytes(fresh / name, (folder / name).read_bytes())
        found = check_parity(fresh, formats, clips, language, folder, watch) if clips else None
        if found:
            found = measure_joined(found, fresh, formats, folder, watch)
            found.write(fresh)
        model, comparison = options.to or str(options.out), found and found.as_json()
        card = build_model_card(origin, model, formats, bool(options.to), comparison)
        write_bytes(fresh / "README.md", card.encode())
    return found


def _language_of_clips(options: PublishOptions) -> str:
    """Return the language to decode an untouched model in: that of the store, or what it was made for first."""
    store = Path(options.clips or "")
    return open_store(store).language if is_store(store) else "en"


def _space_folder(options: PublishOptions) -> Path:
    return options.out.with_name(f"{options.out.name}-space")


def _model_of_space(options: PublishOptions) -> str | None:
    """Return the model of the Hub that a Space is for: the one just pushed, or the one that was named."""
    on_hub = options.run.count("/") == 1 and not Path(options.run).exists()
    return options.to or (options.run if on_hub else None)
