"""The folder of TokBench: what is read of it, and one line for what is wrong with it."""

import json

import pytest
from PIL import Image

from tests.support.tokbench import write_bench
from vistok.core.errors import InputError, MissingFileError
from vistok.eval.tokbench.annotations import read_face_part, read_text_part

WORD = ("abcd", "abcd", (0, 0, 8, 4), 0.03)
POINTS = [[1, 1], [3, 1], [2, 2], [1, 3], [3, 3]]


@pytest.fixture
def bench(tmp_path):
    text = [("a.jpg", (20, 10), [WORD, WORD]), ("b.png", (10, 20), []), ("c.png", (9, 9), [WORD])]
    faces = [("f.jpg", Image.new("RGB", (8, 8)), [(POINTS, 0.2)])]
    return write_bench(tmp_path / "bench", text, faces, sets=("ic13", "cord"))


def test_what_is_read(bench):
    found = read_text_part(bench, ("ic13", "cord"))
    names = [f"{scene.path.parent.name}/{scene.path.name}" for scene in found.scenes]
    assert names == ["ic13/a.jpg", "ic13/c.png", "cord/a.jpg", "cord/c.png"]  # b has no word
    word = found.scenes[0].words[1]
    assert (word.text, word.box, word.size) == ("abcd", (0, 0, 8, 4), 0.03)
    assert [len(scene.words) for scene in found.scenes] == [2, 1, 2, 1]
    face = read_face_part(bench).scenes[0].faces[0]
    assert face.points == tuple(map(tuple, POINTS)) and face.size == 0.2
    assert [len(read_text_part(bench, ("ic13",), images=n).scenes) for n in (1, 2, 3)] == [1, 1, 2]


def test_sixty_four_words_of_a_set_make_a_block(tmp_path):
    text = [(f"{i}.png", (20, 10), [WORD] * 30) for i in range(5)]
    bench = write_bench(tmp_path, text, sets=("ic13", "tt"))
    found = read_text_part(bench, ("ic13", "tt"))
    blocks = [word.block for scene in found.scenes for word in scene.words]
    sizes = [blocks.count(one) for one in dict.fromkeys(blocks)]
    assert sizes == [64, 64, 22, 64, 64, 22]  # they begin anew with each set


def test_the_hash_knows_annotations_and_images(bench):
    before = read_text_part(bench, ("ic13",)).sha256
    assert read_text_part(bench, ("ic13",)).sha256 == before
    file = bench / "annotations" / "text_ic13.json"
    entries = json.loads(file.read_text())
    entries[0]["annotations"][0]["ratio"] = 0.031
    file.write_text(json.dumps(entries))
    changed = read_text_part(bench, ("ic13",)).sha256
    assert changed != before
    Image.new("RGB", (20, 11), (9, 9, 9)).save(bench / "images" / "text_data" / "ic13" / "a.jpg")
    assert read_text_part(bench, ("ic13",)).sha256 != changed
    assert read_text_part(bench, ("ic13", "cord")).sha256 != changed


def test_folders_and_files_that_are_missing(bench, tmp_path):
    with pytest.raises(MissingFileError, match="no folder 'annotations' in it; expected TokBench"):
        read_text_part(tmp_path, ("ic13",))
    with pytest.raises(MissingFileError, match=r"text_tt\.json: no such file; fetch it"):
        read_text_part(bench, ("ic13", "tt"))
    (bench / "images" / "text_data" / "cord" / "c.png").unlink()
    with pytest.raises(MissingFileError, match=r"c\.png: no such image \(1 of 4 are missing\)"):
        read_text_part(bench, ("ic13", "cord"))
    (bench / "annotations" / "face_meta.json").unlink()
    with pytest.raises(MissingFileError, match=r"face_meta\.json: no such file"):
        read_face_part(bench)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}", "expected a list of images"),
        ("[", "not JSON|JSON"),
        ("[3]", "no key 'annotations'"),
        ('[{"annotations": []}]', "no key 'file_name'"),
        ('[{"file_name": "a.jpg", "annotations": {}}]', "expected a list"),
        ('[{"file_name": "a.jpg", "annotations": [{"rec": 3}]}]', "rec=3: expected a text"),
        ('[{"file_name": "a", "annotations": [{"rec": "a", "bbox": [1]}]}]', "a word and 4 num"),
        ('[{"file_name": "a", "annotations": [{"rec": "", "bbox": [1,2,3,4]}]}]', "a word and 4"),
        ('[{"file_name": "a", "annotations": [{"rec": "a", "bbox": [1,2,3,"4"]}]}]', "a number"),
        ('[{"file_name": "a", "annotations": [{"rec": "a", "bbox": [1,2,3,4]}]}]', "ratio=None"),
        ('[{"file_name": "a", "annotations": []}]', "no text in ic13; expected one image or more"),
    ],
)
def test_annotations_that_are_something_else(bench, content, why):
    (bench / "annotations" / "text_ic13.json").write_text(content)
    with pytest.raises(InputError, match=why) as caught:
        read_text_part(bench, ("ic13",))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kps", [[[1, 2]] * 4, [[1, 2, 3]] * 5, [1] * 5, [["a", 2]] * 5])
def test_faces_need_five_points(bench, kps):
    faces = [{"image_name": "f.jpg", "faces": [{"kps": kps, "ratio": 0.1}]}]
    (bench / "annotations" / "face_meta.json").write_text(json.dumps(faces))
    with pytest.raises(InputError, match=r"expected (five points|a number)"):
        read_face_part(bench)


def test_an_image_that_is_none(bench):
    scene = read_text_part(bench, ("ic13",)).scenes[0]
    scene.path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.jpg: not a readable image") as caught:
        scene.open()
    assert "\n" not in str(caught.value)
