"""The evaluation itself: data sets through one model or two, journals to tables, tables to files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from samrt.backends.session import check_threads
from samrt.bundle.folder import Bundle, open_bundle
from samrt.engines.selection import Choice, choose
from samrt.errors import BundleError, InputError, OutputError
from samrt.evaluation.baselines import disc_radius
from samrt.evaluation.datasets import INDEX, Survey, fingerprint, open_data_sets, survey
from samrt.evaluation.difference import paired_difference
from samrt.evaluation.journal import ANOTHER_FOLDER, JOURNAL_MARK, Journal, check_journal, read_records
from samrt.evaluation.options import Contender, Options
from samrt.evaluation.protocol import PromptPlan, parse_prompts
from samrt.evaluation.record_check import RecordCheck
from samrt.evaluation.records import Record, evaluate_instances
from samrt.evaluation.report import REPORT_MARK, describe_left_out, markdown_report
from samrt.evaluation.results import (
    RESULTS_MARK,
    DataSetSummary,
    Evaluation,
    ModelDescription,
    check_results,
    write_text,
)
from samrt.evaluation.sheet import choose_shown, draw_sheet
from samrt.evaluation.summary import Row, Table, summarise, tabulate
from samrt.evaluation.truths import DataSet, Item
from samrt.files import check_mark, path_of
from samrt.images import read_image
from samrt.lock import LOCK_NAME, folder_lock
from samrt.model import Model, load
from samrt.png import PNG_MARK, write_png
from samrt.progress import SILENT, Progress
from samrt.work_folder import remove_leftovers

_RESULTS, _REPORT = "results.json", "results.md"
_JOURNALS = ("instances.jsonl", "other.jsonl")
# Begins the name under which images are counted whose scores are on the disk.
IMAGES = "images of "


def evaluate(
    data: str | os.PathLike[str],
    contender: Contender,
    output: str | os.PathLike[str],
    options: Options | None = None,
    other: Contender | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Prompt a model by the annotations of data sets, score its masks, and write the results.

    The protocol is the SAM paper's (arXiv:2304.02643, section 7.1 and appendix D.1), see docs/evaluation.md. An
    evaluation that was interrupted goes on where it was when it is called again.

    Args:
        data: a folder with an index.json, a folder of such folders, or a COCO JSON file, instances or panoptic.
        contender: the model.
        output: the folder for results.json, results.md, pictures and journals; made if need be.
        options: prompts, limits and folders.
        other: a second model, for the same prompts, to compare with the first.
        progress: is told what is done; counts "annotations of" and "images of" each data set.

    Raises:
        InputError: the data, a prompt or a journal in `output` cannot be used.
        BundleError: a bundle is missing or damaged.
        BackendError: a backend cannot be used, or failed.
        OutputError: a file cannot be written, `output` is no place for results, or another process evaluates into it.
            The images that were done are kept.
    """
    options = Options() if options is None else options
    if not isinstance(options, Options) or not all(isinstance(each, Contender | None) for each in (contender, other)):
        raise InputError("options must be an Options, and models a Contender each; see samrt.evaluation")
    check_threads(options.threads)
    plan = parse_prompts(options.prompts)
    images, masks = (
        None if each is None else path_of(each, "the folder of images or masks")
        for each in (options.images, options.masks)
    )
    data_sets = open_data_sets(path_of(data, "the data set"), images, masks, options.limit)
    folder = path_of(output, "the output", OutputError)
    contenders = [contender] if other is None else [contender, other]
    for each in contenders:
        _check_output(folder, path_of(each.bundle, "the bundle", BundleError))
    _check_apart(folder, data_sets, plan)
    names = [each.name for each in data_sets]
    check_results(folder / _RESULTS, names, restart=options.restart, overwrite=options.overwrite)
    if not options.overwrite:
        _check_marks(folder, data_sets, plan, restart=options.restart)
    # All that can be refused is refused before the first image, the second model's part too.
    runs = [_Run.prepare(each, folder, name) for each, name in zip(contenders, _JOURNALS, strict=False)]
    headers = [{"prompts": plan.names, "data_set": fingerprint(each)} for each in data_sets]
    for run in runs:
        for reason in run.choice.skipped:
            progress.say(replace(reason, facts=f"skipped {reason.facts}"))
        if str(run.choice) != run.description.backend:
            progress.say(str(run.choice))
        for data_set, header in zip(data_sets, headers, strict=True):
            if not options.restart:
                check_journal(run.journal(data_set), run.header(header))
    surveys = [survey(each, progress) for each in data_sets]
    summaries = tuple(_summary(*pair) for pair in zip(data_sets, surveys, strict=True))
    for summary, found in zip(summaries, surveys, strict=True):
        _tell(summary, found, progress)
    _make_folder(folder)
    with folder_lock(folder, "evaluation"):
        # Again: another evaluation may have ended meanwhile.
        check_results(folder / _RESULTS, names, restart=options.restart, overwrite=options.overwrite)
        _clear(folder, data_sets, progress, restart=options.restart)
        for run in runs:
            with load(run.bundle, run.backend, threads=options.threads) as model:
                for data_set, header, summary, found in zip(data_sets, headers, summaries, surveys, strict=True):
                    _make_folder(run.journal(data_set).parent)
                    check = RecordCheck(found.images, plan, run.masks)
                    with Journal(run.journal(data_set), run.header(header), check.fits) as journal:
                        work = _Work(model, plan, summary.disc_radius)
                        _fill(journal, data_set, work, run.title(data_set, len(runs)), progress)
        evaluation = _results(runs, data_sets, summaries, plan)
        marks = (None, None) if options.overwrite else (RESULTS_MARK, REPORT_MARK)
        write_text(folder / _RESULTS, evaluation.to_json(), marks[0])
        pictures = list(_write_sheets(folder, runs[0], data_sets, plan, evaluation.rows, options.overwrite))
        write_text(folder / _REPORT, markdown_report(evaluation, pictures), marks[1])
        return evaluation


@dataclass(frozen=True)
class _Run:
    """One model's part of an evaluation."""

    bundle: Bundle
    backend: str
    choice: Choice
    description: ModelDescription
    folder: Path
    file_name: str

    @classmethod
    def prepare(cls, contender: Contender, folder: Path, file_name: str) -> _Run:
        bundle = open_bundle(contender.bundle)
        choice = choose(bundle, contender.backend)
        return cls(bundle, contender.backend, choice, ModelDescription.of(bundle, choice), folder, file_name)

    def journal(self, data_set: DataSet) -> Path:
        return self.folder / data_set.name / self.file_name

    @property
    def masks(self) -> int:
        """Of each prompt: the single one, and those of an ambiguous prompt."""
        return 1 + len(self.bundle.manifest.masks.ambiguous)

    def header(self, header: dict[str, Any]) -> dict[str, Any]:
        return {"model": self.description.identity, **header}

    def title(self, data_set: DataSet, runs: int) -> str:
        which = "first" if self.file_name == _JOURNALS[0] else "second"
        return f"{IMAGES}{data_set.name}" + (f", {which} model" if runs > 1 else "")

    def records(self, data_set: DataSet) -> Iterator[Record]:
        return read_records(self.journal(data_set), [item.name for item in data_set.items])

    def tables(self, data_set: DataSet, plan: PromptPlan) -> list[Table]:
        return tabulate(self.records(data_set), plan.names)


@dataclass(frozen=True, eq=False)
class _Work:
    """What is done with an image."""

    model: Model
    plan: PromptPlan
    disc_radius: float

    def record(self, item: Item) -> dict[str, Any]:
        image = read_image(item.image)
        truths = item.read((image.shape[0], image.shape[1])).instances
        if not truths:
            return {"image": item.name, "instances": []}
        embedding = self.model.encode(image)
        instances = evaluate_instances(self.model, embedding, truths, self.plan, self.disc_radius)
        return {"image": item.name, "instances": instances}


def _fill(journal: Journal, data_set: DataSet, work: _Work, title: str, progress: Progress) -> None:
    """Add what is missing to the journal."""
    total = len(data_set.items)
    if journal.dropped:
        progress.say(
            f"{journal.path}: {journal.dropped} lines were dropped that are damaged or not of this evaluation; their "
            "images are evaluated again"
        )
    progress.step(title, len(journal.done), total)
    for item in data_set.items:
        if item.name not in journal.done:
            journal.add(work.record(item))
            progress.step(title, len(journal.done), total)


def _summary(data_set: DataSet, found: Survey) -> DataSetSummary:
    return DataSetSummary(
        name=data_set.name,
        images=len(data_set.items),
        available=data_set.available,
        instances=found.instances,
        median_area=found.median_area,
        disc_radius=disc_radius(found.median_area),
        left_out=found.left_out,
        left_out_named=found.named,
        notes=data_set.notes,
    )


def _tell(summary: DataSetSummary, found: Survey, progress: Progress) -> None:
    left_out = describe_left_out(summary)
    if left_out:
        progress.say(f"{summary.name}: left out {left_out}")
    for note in summary.notes:
        progress.say(f"{summary.name}: {note}")
    if found.turned:
        progress.say(
            f"{summary.name}: {found.turned} of {summary.images} images are rotated by their EXIF orientation; "
            "their annotations must fit the rotated image"
        )


def _results(
    runs: Sequence[_Run], data_sets: Sequence[DataSet], summaries: tuple[DataSetSummary, ...], plan: PromptPlan
) -> Evaluation:
    rows: list[list[Row]] = [[] for _ in runs]
    differences = []
    for data_set in data_sets:
        tables = [run.tables(data_set, plan) for run in runs]
        for found, own in zip(rows, tables, strict=True):
            found += [summarise(data_set.name, table) for table in own]
        if len(runs) == 2:
            differences += [paired_difference(data_set.name, *pair) for pair in zip(*tables, strict=True)]
    return Evaluation(
        model=runs[0].description,
        prompts=plan.names,
        data_sets=summaries,
        rows=tuple(rows[0]),
        other=runs[1].description if len(runs) == 2 else None,
        other_rows=tuple(rows[1]) if len(runs) == 2 else (),
        differences=tuple(differences),
    )


def _write_sheets(
    folder: Path, run: _Run, data_sets: Sequence[DataSet], plan: PromptPlan, rows: Sequence[Row], overwrite: bool
) -> Iterator[str]:
    """Write the pictures; yields their names in `folder`."""
    means = {(row.data_set, row.prompt): row.answer.miou for row in rows}
    for data_set in data_sets:
        for prompt in plan.shown:
            chosen = choose_shown(partial(run.records, data_set), prompt)
            title = f"{data_set.name}, {prompt}: mIoU {means[data_set.name, prompt]:.3f}; white line: annotation"
            name = _sheet_name(data_set, prompt)
            write_png(folder / name, draw_sheet(data_set, prompt, chosen, title), overwrite=overwrite)
            yield name


def _sheet_name(data_set: DataSet, prompt: str) -> str:
    return f"{data_set.name}_{prompt.replace(':', '_')}.png"


def _check_marks(folder: Path, data_sets: Sequence[DataSet], plan: PromptPlan, *, restart: bool) -> None:
    """Raises OutputError if a file that would be replaced is not an evaluation's; `check_results` has its own."""
    check_mark(folder / _REPORT, REPORT_MARK)
    for data_set in data_sets:
        for prompt in plan.shown:
            check_mark(folder / _sheet_name(data_set, prompt), PNG_MARK)
        for name in _JOURNALS if restart else ():
            check_mark(folder / data_set.name / name, JOURNAL_MARK)


def _check_output(folder: Path, bundle: Path) -> None:
    try:
        os.stat(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; choose another folder") from error
    real = Path(os.path.realpath(folder))
    if Path(os.path.realpath(bundle)) in (real, *real.parents):
        raise OutputError(f"{folder} is the bundle {bundle} or lies in it", ANOTHER_FOLDER)
    if (folder / INDEX).exists():
        raise OutputError(f"{folder} is a data set", ANOTHER_FOLDER)
    if not real.parent.is_dir():
        raise OutputError(f"cannot write {folder}: the folder {real.parent} does not exist; create it first")
    if real.exists() and not real.is_dir():
        raise OutputError(f"cannot write the folder {folder}: a file of that name exists", ANOTHER_FOLDER)


def _check_apart(folder: Path, data_sets: Sequence[DataSet], plan: PromptPlan) -> None:
    """A data set is only read: no part of the results goes into its folder. A folder of journals is no other result."""
    files = {_RESULTS, _REPORT, LOCK_NAME, *(_sheet_name(each, prompt) for each in data_sets for prompt in plan.shown)}
    taken = next((each for each in data_sets if each.name in files), None)
    if taken is not None:
        raise InputError(f"{taken.index} gives its data set the name {taken.name!r}, as a result has; rename it")
    for into in data_sets:
        real = Path(os.path.realpath(folder / into.name))
        for each in data_sets:
            root = Path(os.path.realpath(each.index.parent))
            if each.index.name == INDEX and root in (real, *real.parents):
                raise OutputError(f"results in {folder} would lie in the data set {root}", ANOTHER_FOLDER)


def _clear(folder: Path, data_sets: Sequence[DataSet], progress: Progress, *, restart: bool) -> None:
    """Remove what killed evaluations left, and to `restart` the results.

    All at once, so that an interrupted new beginning can go on: what is there then is of it.
    """
    for place in (folder, *(folder / each.name for each in data_sets)):
        remove_leftovers(place, say=progress.say)
    if not restart:
        return
    journals = [folder / each.name / name for each in data_sets for name in _JOURNALS]
    for path in (folder / _RESULTS, folder / _REPORT, *journals):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot replace {path}: {error.strerror}; check the permissions") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {folder}: {error.strerror}; check the path and its permissions"
        ) from error
