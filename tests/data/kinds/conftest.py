"""Tar shards for the tests of their readers."""

import itertools
import json

import pytest

from tests.support.tars import png, write_tar


@pytest.fixture
def shards(tmp_path, make_image):
    """shards(7, 5, ...) -> a folder of tars with that many samples of two classes."""

    def make(*counts):
        number = itertools.count()
        for shard, count in enumerate(counts):
            members = []
            for key in itertools.islice(number, count):
                members += [
                    (f"{key:05d}.png", png(make_image, key)),
                    (f"{key:05d}.cls", b"%d\n" % (key % 2)),
                    (f"{key:05d}.json", json.dumps({"class": key % 2, "id": key}).encode()),
                ]
            write_tar(tmp_path / f"part-{shard:02d}.tar", members)
        return tmp_path

    return make
