"""Tables of clips: blanks, capitals, other separators, values without a column."""

import pytest

from tests.support.films import film, open_video
from vistok.data import DataError
from vistok.data.kinds.csv_table import read_table


@pytest.fixture
def table(tmp_path):
    """table(text) -> path of a csv beside two clips."""
    for name in ("a.mp4", "b.mp4"):
        film(tmp_path / name, count=4)

    def make(text: str, encoding: str = "utf-8"):
        path = tmp_path / "list.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return make


def labels(path, **options):
    data = open_video(path=str(path), frames=2, **options)
    return [(data.names[i], data.classes[data.labels[i]]) for i in range(len(data))]


def test_every_table_that_was_reported(shared, fails):
    place = shared / "reported" / "csv_header"
    if not place.is_dir():
        pytest.skip(f"no {place}")
    right = [("mpeg4.mp4", "cat"), ("vfr.mp4", "dog")]
    assert labels(place / "blank.csv") == right
    assert labels(place / "comma.csv") == [("mpeg4.mp4", "playing cello, loud"), right[1]]
    assert labels(place / "upper.csv", path_column="Path", label_column="Label") == right
    with fails(DataError, "no column 'path'; it has Path, Label; .*as it is written: Path"):
        labels(place / "upper.csv")
    with fails(DataError, "semicolon.csv: no column 'path'; it has path;label; expected commas"):
        labels(place / "semicolon.csv")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.mp4,cat\nb.mp4,dog\n",
        "path, label\na.mp4, cat\nb.mp4, dog\n",
        " path\t,label ,\r\n a.mp4 ,cat ,\r\n\r\n b.mp4,dog,\r\n",
        '"path" , "label"\n"a.mp4", "cat"\n"b.mp4", "dog"\n',
        "label,\u00a0path\ncat,a.mp4\ndog,b.mp4",
    ],
)
def test_blanks_are_no_part_of_names_and_values(table, text):
    assert labels(table(text)) == [("a.mp4", "cat"), ("b.mp4", "dog")]
    assert labels(table(text, "utf-8-sig")) == [("a.mp4", "cat"), ("b.mp4", "dog")]


def test_a_label_column_of_another_name_is_never_passed_over_in_silence(table, fails, caplog):
    with fails(DataError, "no column 'label'; it has path, Label; .*as it is written: Label"):
        labels(table("path,Label\na.mp4,cat\n"))
    data = open_video(path=str(table("path,class\na.mp4,cat\n")), frames=2)
    assert data.classes == () and data[0].label == -1
    (line,) = [r.getMessage() for r in caplog.records if "unlabeled" in r.getMessage()]
    assert "no column 'label', so the clips are unlabeled; it has class" in line
    assert labels(table("path,class\na.mp4,cat\n"), label_column="class") == [("a.mp4", "cat")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na.mp4,playing cello, loud\n", "line 2 has 3 values for 2 columns; .* quotes"),
        ("path,label\na.mp4,cat\nb.mp4\n", "line 3 has 1 values for 2 columns"),
        ("path,label,label\na.mp4,cat,dog\n", "the column 'label' is there twice"),
        ("path,label\n,cat\n", "row 1 lacks a path"),
        ("path,label\n", "no rows"),
        ("", "no column 'path'; it has none"),
    ],
)
def test_values_without_a_column_are_named(table, fails, text, words):
    with fails(DataError, words):
        labels(table(text))


def test_an_empty_label_is_unlabeled(table):
    assert read_table(table("path,label\na.mp4,\n"), "video")[1] == [{"path": "a.mp4", "label": ""}]
    data = open_video(path=str(table("path,label\na.mp4,\nb.mp4,dog\n")), frames=2)
    assert data.labels == [-1, 0]
