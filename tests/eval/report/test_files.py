"""A report replaces its own earlier version and nothing else of its user's."""

import errno
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.eval_results import row, run_facts
from vistok.core.errors import InputError
from vistok.eval.__main__ import evaluate, reference, speed
from vistok.eval.report.page import write_report
from vistok.eval.results.rows import Results

NAMES = ("report.csv", "report.html", "report.md", "report.tex", "results.json")


def of(*names, protocols=("rfid",), value=1.0):
    """Results of some runs, each in a folder of its name."""
    return Results(
        rows=tuple(row("PSNR", name, value) for name in names),
        runs=tuple(run_facts(name, folder=f"runs/{name}") for name in names),
        facts={"config": {"protocols": list(protocols)}},
    )


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def refused(results, page, *words):
    """The report is refused in one line with these words, and nothing in its folder changes."""
    before = content(page.parent)
    with pytest.raises(InputError) as caught:
        write_report(results, page)
    assert content(page.parent) == before
    said = str(caught.value)
    assert "\n" not in said and all(word in said for word in (*words, "overwrite=true")), said


def test_an_earlier_version_is_replaced(tmp_path):
    page = tmp_path / "report.html"
    write_report(of("a"), page)
    assert sorted(content(tmp_path)) == sorted(NAMES)
    write_report(of("a", value=2.0), page)  # measured again
    write_report(of("a", "b", protocols=("rfid", "pfid"), value=3.0), page)  # and more of it
    assert sorted(content(tmp_path)) == sorted(NAMES)
    assert {r.value for r in Results.load(tmp_path / "results.json").rows} == {3.0}


def test_a_second_report_in_a_folder_keeps_the_numbers_of_the_first(tmp_path):
    write_report(of("a"), tmp_path / "report.html")
    first = content(tmp_path)
    written = write_report(of("b"), tmp_path / "more.html")
    assert written[0].name == "more.results.json"
    assert content(tmp_path).items() >= first.items()
    assert Results.load(written[0]).runs[0]["name"] == "b"
    assert "more.results.json" in (tmp_path / "more.md").read_text("utf-8")
    page = (tmp_path / "more.html").read_text("utf-8")
    assert "lie beside this file in more.results.json" in page
    second = content(tmp_path)
    for name in ("report", "more"):  # each again, in the same files
        write_report(of("a" if name == "report" else "b"), tmp_path / f"{name}.html")
    assert sorted(content(tmp_path)) == sorted(second)


def test_other_runs_or_fewer_protocols_are_refused(tmp_path):
    page = tmp_path / "report.html"
    write_report(of("a", "b", protocols=("rfid", "pfid")), page)
    refused(of("a", protocols=("rfid", "pfid")), page, "report.html", " b,")
    refused(of("a", "b"), page, "protocol pfid")
    write_report(of("c"), page, overwrite=True)
    assert Results.load(tmp_path / "results.json").runs[0]["name"] == "c"


@pytest.mark.parametrize("name", NAMES[:4])
def test_a_file_that_was_there_before_is_kept(tmp_path, name):
    (tmp_path / name).write_text("mine")
    refused(of("a"), tmp_path / "report.html", name, "was there before")
    write_report(of("a"), tmp_path / "report.html", overwrite=True)
    assert (tmp_path / name).read_text("utf-8") != "mine"


@pytest.mark.parametrize("text", ["{}", "[1]", "mine", '{"schema": 3}'])
def test_somebody_elses_results_are_kept(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    for overwrite in (False, True):
        written = write_report(of("a"), tmp_path / "report.html", overwrite)
        assert written[0].name == "report.results.json"
    assert (tmp_path / "results.json").read_text() == text


def test_an_edited_file_is_kept(tmp_path):
    page = tmp_path / "report.html"
    write_report(of("a"), page)
    with open(tmp_path / "report.md", "a", encoding="utf-8") as file:
        file.write("my remarks\n")
    refused(of("a"), page, "report.md", "edited since")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dangling", [False, True])
def test_links_are_not_written_through(tmp_path, name, dangling):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    if not dangling:
        other.write_text("mine")
    (out / name).symlink_to(other)
    page = out / "report.html"
    if name == "results.json":  # it is not this report's, which has another then
        assert write_report(of("a"), page)[0].name == "report.results.json"
    else:
        with pytest.raises(InputError, match="a link to"):
            write_report(of("a"), page)
        write_report(of("a"), page, overwrite=True)
        assert not (out / name).is_symlink()
    assert other.exists() != dangling and (dangling or other.read_text() == "mine")


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "report.csv").mkdir()
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"report\.csv: a folder"):
            write_report(of("a"), tmp_path / "report.html", overwrite)


def test_a_full_disk_leaves_the_earlier_version(tmp_path, monkeypatch):
    write_report(of("a"), tmp_path / "report.html")
    before, real = content(tmp_path), Path.write_bytes

    def full(path, data):
        if path.name.startswith(".writing_report.tex"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"report\.tex: cannot be written \(No space"):
        write_report(of("a", value=2.0), tmp_path / "report.html")
    assert content(tmp_path) == before


def test_the_command_refuses_before_it_measures(runs, tmp_path, monkeypatch):
    page = tmp_path / "out" / "report.html"
    arguments = [str(runs[0]), f"report={page}", "limit=4", "protocols=rfid"]
    done = CliRunner().invoke(evaluate, arguments)
    assert done.exit_code == 0 and f"wrote {page}" in done.output, done.output
    done = CliRunner().invoke(evaluate, arguments)  # the same again
    assert done.exit_code == 0 and f"replaced {page}" in done.output
    other = runs[0].with_name("tok-b")
    runs[0].rename(other)
    monkeypatch.setattr("vistok.eval.measure.open_data", None)  # nothing is opened
    done = CliRunner().invoke(evaluate, [str(other), *arguments[1:]])
    (line,) = done.output.strip().splitlines()
    assert done.exit_code == 1 and "the report there has tok, which" in line


def test_reference_statistics_replace_only_such(tmp_path):
    arguments = ["data.kind=photos", "data.size=8", "data.count=4", "split=train"]
    out = tmp_path / "ref.npz"
    out.write_text("mine")
    done = CliRunner().invoke(reference, [*arguments, f"out={out}"])
    assert done.exit_code == 1 and "not written by this command" in done.output
    assert out.read_text() == "mine"
    done = CliRunner().invoke(reference, [*arguments, f"out={out}", "overwrite=true"])
    assert done.exit_code == 0 and f"replaced {out}" in done.output
    done = CliRunner().invoke(reference, [*arguments, f"out={out}"])
    assert done.exit_code == 0 and f"replaced {out}" in done.output


def test_speed_replaces_only_its_own_numbers(tmp_path):
    report = tmp_path / "speed.json"
    of("a").save(report)  # numbers of an evaluation
    for asked in (["lookup=true"], ["runs/none"]):
        done = CliRunner().invoke(speed, [*asked, f"report={report}"])
        assert done.exit_code == 1 and "not written by this command" in done.output
    own = of("a")
    facts = {"matrix_product_flops": {"float32": 1.0}, "measured": ["runs/none"]}
    own.model_copy(update={"facts": facts}).save(report)
    done = CliRunner().invoke(speed, ["runs/other", f"report={report}"])  # of another run
    assert done.exit_code == 1 and "not written by this command" in done.output
    done = CliRunner().invoke(speed, ["runs/none", f"report={report}"])
    assert "no such folder" in done.output  # it would be replaced
