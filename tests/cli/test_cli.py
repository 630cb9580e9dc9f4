"""The commands as a person types them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from sidfast.cli import main

yaml = pytest.importorskip("yaml")
Image = pytest.importorskip("PIL.Image")

SHORT = ["--batch", "16", "--kimg", "0.064", "--set", "evaluations=3", "--set", "eval_samples=200"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four iterations, with its evaluation."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["distill", "digits", "--out", str(folder), "--no-evaluate", *SHORT]) == 0
    return folder


def test_dry_run_prints_the_config_and_makes_nothing(capsys, tmp_path) -> None:
    out = tmp_path / "x"
    flags = ["--alpha", "1.0", "--set", "t_max=700", "--dry-run"]
    assert main(["distill", "digits", "--out", str(out), *flags]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["alpha"], config["t_max"], config["batch"]) == (1.0, 700.0, 128)
    assert not out.exists()


def test_flags_win_over_file_over_recipe(capsys, tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("batch: 64\nalpha: 1.1\n")
    flags = ["--config", str(tmp_path / "c.yaml"), "--alpha", "0.5", "--dry-run"]
    assert main(["distill", "digits", "--recipe", "ffhq64", "--out", "x", *flags]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["alpha"], config["batch"], config["generator_beta1"]) == (0.5, 64, 0.9)


def test_sample_writes_a_grid_and_an_array(run, tmp_path) -> None:
    assert main(["sample", str(run), "-n", "6", "-o", str(tmp_path / "g.png")]) == 0
    grid = Image.open(tmp_path / "g.png")
    assert grid.size[0] % 28 == 0 and grid.size[1] * 28 == grid.size[0] * 19
    assert main(["sample", str(run), "-n", "6", "-o", str(tmp_path / "g.npy")]) == 0
    assert np.load(tmp_path / "g.npy").shape == (6, 1, 8, 8)


def test_evaluate_leaves_table_and_picture(run, capsys) -> None:
    assert main(["evaluate", str(run), "-n", "300"]) == 0
    assert "teacher" in capsys.readouterr().out
    report = json.loads((run / "evaluation.json").read_text())
    assert report["generator"]["network_calls"] == 1
    assert report["teacher"]["network_calls"] == 35
    assert "real split" in (run / "evaluation.md").read_text()
    assert Image.open(run / "result.png").size[0] > 1000


def test_resume_of_a_finished_run_changes_nothing(run, tmp_path, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    before = (copy / "generator.safetensors").read_bytes()
    assert main(["distill", "digits", "--out", str(copy), "--resume", "--no-evaluate"]) == 0
    assert (copy / "generator.safetensors").read_bytes() == before


def test_info_names_every_operator(capsys) -> None:
    assert main(["info"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    table = {row[0]: row for row in reversed(rows)}  # the first of a name stays
    assert "torch" in table and "cpu:" in table
    assert table["operators"][:4] == ["operators", "on", "cpu", "native"]
    for op in ("sid_loss", "add_noise", "group_norm_silu", "adam_ema"):
        assert len(table[op]) == len(table["operators"]) - 2 and table[op][-1] == "yes"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distill", "digit", "--out", "x"], "digits"),
        (["distill", "digits", "--out", "x", "--batch", "ten"], "batch"),
        (["distill", "digits", "--out", "x", "--set", "aplha=1"], "did you mean 'alpha'"),
        (["distill", "digits", "--out", "x", "--set", "alpha"], "NAME=VALUE"),
        (["distill", "digits", "--out", "x", "--recipe", "lsun"], "recipe among"),
        (["distill", "digits", "--out", "x", "--device", "cuda:77"], "device"),
        (["distill", "digits", "--out", "none", "--resume"], "with a checkpoint"),
        (["distill", "digits", "--out", "none", "--resume", "--alpha", "1"], "its own"),
        (["distill", "digits", "--out", "x", "--set", "augment=0.1"], "set augment to 0"),
        (["sample", "nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1, error
    assert list(tmp_path.iterdir()) == []


def test_bad_samples_are_one_line(run, capsys, tmp_path) -> None:
    assert main(["sample", str(run), "--label", "3"]) == 2
    assert "without classes" in capsys.readouterr().err
    assert main(["sample", str(run), "-n", "0"]) == 2
    assert main(["sample", str(run), "-o", str(tmp_path / "g.gif")]) == 2
    assert main(["sample", str(run), "-o", str(tmp_path / "no" / "g.png")]) == 2
    broken = tmp_path / "generator.safetensors"
    broken.write_bytes((run / "generator.safetensors").read_bytes()[:-100])
    capsys.readouterr()
    assert main(["sample", str(broken)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
