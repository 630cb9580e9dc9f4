"""Runs that stop and go on, folders, files and bad input."""

from __future__ import annotations

import json
import os
import signal
import threading

import pytest
import torch
from torch import nn

import sidfast
from sidfast import DistillConfig
from sidfast.base.errors import InputError
from sidfast.distillation.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from sidfast.distillation.loop import evaluation_points
from sidfast.distillation.pictures import GREY, fit_power_law, grid_array, grid_layout
from sidfast.distillation.run import RunFolder
from sidfast.teachers import as_denoiser

SafetensorError = pytest.importorskip("safetensors").SafetensorError


def config(**settings) -> DistillConfig:
    return DistillConfig(
        **{
            "batch": 4,
            "kimg": 0.024,
            "lr": 1e-4,
            "augment": 0.2,
            "evaluations": 3,
            "eval_samples": 80,
            "log_every": 2,
            **settings,
        }
    )


def weights(result: sidfast.DistillResult) -> torch.Tensor:
    return torch.cat([p.flatten() for p in result.generator.network.parameters()])


def rows(result: sidfast.DistillResult) -> list[dict]:
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in result.metrics]


@pytest.fixture
def references() -> torch.Tensor:
    return torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_run_leaves_what_it_says(make_teacher, tmp_path, references) -> None:
    result = sidfast.distill(make_teacher(), config(), out=tmp_path / "x", references=references)
    names = {path.name for path in result.path.iterdir()}
    assert names == {
        "config.yaml",
        "metrics.jsonl",
        "samples",
        "checkpoints",
        "curves.png",
        "generator.safetensors",
    }
    assert DistillConfig.read(result.path / "config.yaml") == config()
    measured = [row["n_img"] for row in result.metrics if "frechet" in row]
    assert measured == sorted(evaluation_points(config()))
    assert len(list((result.path / "samples").iterdir())) == len(measured)
    again = sidfast.load_generator(result.path)
    assert torch.equal(again.sample(7, seed=3), result.generator.sample(7, seed=3))
    assert again.record["n_img"] == 24


@pytest.mark.parametrize("request_to_stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed_is_the_unbroken_run(
    make_teacher, tmp_path, references, request_to_stop
) -> None:
    whole = sidfast.distill(make_teacher(), config(), out=tmp_path / "a", references=references)

    def interrupt(distiller, row) -> None:
        if row["n_img"] == 8:
            os.kill(os.getpid(), request_to_stop)

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt, match="state saved"):
        sidfast.distill(
            make_teacher(),
            config(),
            out=tmp_path / "b",
            references=references,
            callbacks=[interrupt],
        )
    resumed = sidfast.distill(
        make_teacher(), out=tmp_path / "b", references=references, resume=True
    )
    assert torch.equal(weights(resumed), weights(whole))
    assert rows(resumed) == rows(whole)


def test_rows_after_the_checkpoint_are_made_again(make_teacher, tmp_path) -> None:
    """A run killed without notice leaves rows that are newer than its newest checkpoint."""

    class Killed(Exception):
        pass

    def kill(distiller, row) -> None:
        if row["n_img"] == 16:
            raise Killed

    cfg = config(checkpoint_kimg=0.008)
    whole = sidfast.distill(make_teacher(), cfg, out=tmp_path / "a")
    with pytest.raises(Killed):
        sidfast.distill(make_teacher(), cfg, out=tmp_path / "b", callbacks=[kill])
    with (tmp_path / "b" / "metrics.jsonl").open("a") as file:
        file.write('{"n_img": 20, "fake_l')
    resumed = sidfast.distill(make_teacher(), out=tmp_path / "b", resume=True)
    assert rows(resumed) == rows(whole)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_second_run_does_not_overwrite_the_first(make_teacher, tmp_path) -> None:
    sidfast.distill(make_teacher(), config(), out=tmp_path)
    before = (tmp_path / "generator.safetensors").read_bytes()
    with pytest.raises(InputError, match="another run"):
        sidfast.distill(make_teacher(), config(), out=tmp_path)
    assert (tmp_path / "generator.safetensors").read_bytes() == before


def test_resume_refuses_what_does_not_belong(make_teacher, tmp_path) -> None:
    with pytest.raises(InputError, match="with a checkpoint"):
        sidfast.distill(make_teacher(), out=tmp_path / "none", resume=True)
    sidfast.distill(make_teacher(), config(), out=tmp_path / "a")
    other = make_teacher()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(InputError, match="other weights"):
        sidfast.distill(other, out=tmp_path / "a", resume=True)
    with pytest.raises(InputError, match="the config of the run"):
        sidfast.distill(make_teacher(), config(alpha=1.0), out=tmp_path / "a", resume=True)


def test_unwritable_folder(make_teacher, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="can be written"):
        sidfast.distill(make_teacher(), config(), out=tmp_path / "file" / "run")


def test_checkpoint_notices_damage_and_keeps_the_last(tmp_path) -> None:
    state = {"n": 3, "nested": {0: torch.arange(5.0)}, "list": [torch.ones(2), "x", None]}
    for name in ("1", "2", "3"):
        path = save_checkpoint(tmp_path, name, state)
    assert [p.name for p in checkpoints(tmp_path)] == ["2", "3"]
    back = load_checkpoint(path)
    assert back["n"] == 3 and torch.equal(back["nested"][0], torch.arange(5.0))
    assert back["list"][1:] == ["x", None]

    file = path / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match="checksum"):
        load_checkpoint(path)
    file.write_bytes(data[:-3])
    with pytest.raises(InputError, match="whole checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_failed_save_leaves_the_earlier_one(error, tmp_path, monkeypatch) -> None:
    state = {"w": torch.ones(3)}
    save_checkpoint(tmp_path, "1", state)

    def full(*_, **__) -> None:
        raise error("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(InputError, match="No space left"):
        save_checkpoint(tmp_path, "2", state)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    assert torch.equal(load_checkpoint(tmp_path / "1")["w"], torch.ones(3))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch": 10, "batch_device": 4}, "multiple of batch_device"),
        ({"alpha": "much"}, "alpha"),
        ({"alpah": 1.0}, "did you mean 'alpha'"),
        ({"t_max": 2000}, "t_max"),
        ({"lr": float("nan")}, "lr"),
        ({"kimg": 0}, "kimg"),
        ({"checkpoint_kimg": 0}, "checkpoint_kimg"),
        ({"p_mean": float("nan")}, "p_mean"),
        ({"class_probabilities": []}, "add up to 1"),
        ({"sigma_min": 3, "sigma_max": 2}, "sigma_min < sigma_max"),
        ({"class_probabilities": [0.5, 0.4]}, "add up to 1"),
        ({"nonfinite": "ignore"}, "nonfinite"),
    ],
)
def test_bad_settings_are_one_clear_line(values: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        DistillConfig.parse(values)
    assert "\n" not in str(error.value)


class Plain(nn.Module):
    """Somebody else's x0-prediction: images and sigma in, images out."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.zeros_(self.convolution.weight)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2) + 0.1 * self.convolution(x)


def test_a_foreign_teacher_is_distilled_and_read_back(tmp_path) -> None:
    torch.manual_seed(0)
    teacher = as_denoiser(Plain(), "x0", img_channels=1, img_resolution=8, label_dim=0)
    result = sidfast.distill(teacher, config(augment=0.0), out=tmp_path)
    with pytest.raises(InputError, match="network="):
        sidfast.load_generator(tmp_path)
    empty = as_denoiser(Plain(), "x0", img_channels=1, img_resolution=8, label_dim=0)
    again = sidfast.load_generator(tmp_path, network=empty)
    assert torch.equal(again.sample(5), result.generator.sample(5))


def test_unfit_teachers_are_refused_before_anything_is_made(make_teacher, tmp_path) -> None:
    bare = Plain()
    bare.img_channels, bare.img_resolution, bare.label_dim = 1, 8, 0
    unfit = {
        "as_denoiser": (bare, config(augment=0.0)),
        "augmentation labels": (make_teacher(augment_dim=0), config()),
        "float32": (make_teacher().half(), config()),
        "3 classes": (make_teacher(3), config(class_probabilities=(0.5, 0.5))),
    }
    for words, (teacher, cfg) in unfit.items():
        with pytest.raises(InputError, match=words):
            sidfast.distill(teacher, cfg, out=tmp_path / "x")
        assert not (tmp_path / "x").exists()


def test_refused_resume_leaves_the_metrics(make_teacher, tmp_path) -> None:
    sidfast.distill(make_teacher(), config(), out=tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"n_img": 999}\n')
    before = (tmp_path / "metrics.jsonl").read_text()
    other = make_teacher()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(InputError, match="other weights"):
        sidfast.distill(other, out=tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_config_survives_yaml(tmp_path) -> None:
    cfg = DistillConfig(lr=1e-5, class_probabilities=(0.25, 0.75), batch_device=64)
    (tmp_path / "c.yaml").write_text(cfg.to_yaml())
    assert DistillConfig.read(tmp_path / "c.yaml") == cfg
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="YAML"):
        DistillConfig.read(tmp_path / "bad.yaml")
    (tmp_path / "number.yaml").write_text("5: 3")
    with pytest.raises(InputError, match="'5'"):
        DistillConfig.read(tmp_path / "number.yaml")
    (tmp_path / "d.yaml").write_text("lr: 1e-5\nbatch: '64'\n")
    assert DistillConfig.read(tmp_path / "d.yaml") == DistillConfig(lr=1e-5, batch=64)


def test_power_law_fit_and_grid() -> None:
    x = [10.0, 100.0, 1000.0]
    fit = fit_power_law(x, [5 * v**-0.5 for v in x])
    assert fit.slope == pytest.approx(-0.5) and fit.r2 == pytest.approx(1.0)
    images = torch.stack([torch.full((1, 2, 3), v) for v in (-1.0, 0.0, 1.0)])
    grid = grid_array(images, gap=0)
    assert grid.shape == (4, 6)
    assert grid[0, 0] == 0 and grid[0, 3] == 128 and grid[2, 0] == 255
    spaced = grid_array(images)
    assert spaced.shape == (7, 9)
    assert (spaced[0] == GREY).all() and (spaced[:, 0] == GREY).all()
    assert spaced[1, 1] == 0 and spaced[1, 4] == spaced[3, 1] == GREY and spaced[4, 1] == 255


def test_a_grid_has_a_class_in_each_column() -> None:
    assert grid_layout(0) == (8, None)
    for classes, shares, row in (
        (1, None, [0] * 8),
        (3, None, [0, 0, 1, 1, 2, 2]),
        (10, None, list(range(10))),
        (1000, None, [111 * k for k in range(10)]),
        (4, (0.5, 0.0, 0.5, 0.0), [0] * 4 + [2] * 4),
    ):
        columns, labels = grid_layout(classes, shares)
        assert columns == len(row) and labels.reshape(8, columns).tolist() == [row] * 8


def test_references_of_another_size_are_refused_before_anything_is_written(
    make_teacher, tmp_path
) -> None:
    with pytest.raises(InputError, match="references"):
        sidfast.distill(
            make_teacher(), config(), out=tmp_path / "x", references=torch.zeros(9, 3, 5, 5)
        )
    assert not (tmp_path / "x").exists()


def test_unfinished_run_says_so_when_its_generator_is_read(tmp_path) -> None:
    RunFolder(tmp_path / "x").start(config())
    with pytest.raises(InputError, match="resume"):
        sidfast.load_generator(tmp_path / "x")


def test_metrics_are_json_lines(make_teacher, tmp_path) -> None:
    result = sidfast.distill(make_teacher(), config(), out=tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.metrics
