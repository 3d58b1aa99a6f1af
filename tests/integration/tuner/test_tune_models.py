"""`dlbench tune` on models from the wild: a front that people can choose from."""

import csv

import pytest

from testbed.commands import dlbench


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["silero-vad", "magika", "rapidocr-onnxruntime"])
def test_tune_gives_a_front_of_three_points(name, real_model, tmp_path):
    options = ["--study", "s.db", "--budget", "4m", "--csv", "r.csv", "--recommended", "r.toml"]
    done = dlbench("tune", real_model(name), *options, cwd=tmp_path, timeout=None)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    front = [row for row in rows if row["on_front"] == "true"]
    assert len(front) >= 3, done.stderr + done.stdout
    assert [row["recommended"] for row in front].count("true") == 1
    assert {row["phase"] for row in front} == {"verify"}
