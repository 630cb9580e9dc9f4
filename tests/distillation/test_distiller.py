"""Accumulation, non-finite gradients, frozen parts: what one iteration must keep to."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode

from sidfast import DistillConfig, Distiller
from sidfast.base.errors import InputError
from sidfast.steps import KeyedDraws
from sidfast.steps.accumulate import accumulate


def flat(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def config(**settings) -> DistillConfig:
    return DistillConfig(**{"batch": 8, "kimg": 1.0, "lr": 1e-4, "augment": 0.5, **settings})


@pytest.mark.parametrize("label_dim", [0, 3])
def test_same_numbers_for_any_number_of_rounds(make_teacher, label_dim: int) -> None:
    """Dropout, augmentation, labels and noise are keyed by sample: the split cannot matter."""
    whole = Distiller(make_teacher(label_dim), config())
    parts = Distiller(make_teacher(label_dim), config(batch_device=2))
    a, b = whole.step(), parts.step()
    assert b["fake_loss"].item() == pytest.approx(a["fake_loss"].item(), rel=1e-5)
    assert b["generator_loss"].item() == pytest.approx(a["generator_loss"].item(), rel=1e-3)
    for p, q in zip(
        whole.networks.fake.parameters(), parts.networks.fake.parameters(), strict=True
    ):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-3, atol=1e-4)


def test_draws_differ_between_updates_and_iterations(make_teacher) -> None:
    seed, index = torch.tensor(0), torch.arange(4)
    fake = KeyedDraws("FAKE", seed, index).latents((1, 8, 8))
    generator = KeyedDraws("GENERATOR", seed, index).latents((1, 8, 8))
    later = KeyedDraws("FAKE", seed, index + 4).latents((1, 8, 8))
    assert not torch.equal(fake, generator)
    assert not torch.equal(fake, later)


def test_class_probabilities_are_followed() -> None:
    draws = KeyedDraws("FAKE", torch.tensor(1), torch.arange(4000))
    with FakeTensorMode():  # leaves nothing behind
        KeyedDraws("FAKE", torch.tensor(1), torch.arange(4)).labels(3, (0.5, 0.0, 0.5))
    labels = draws.labels(3, (0.5, 0.0, 0.5))
    assert labels.sum(0)[1] == 0
    assert labels.mean(0)[0].item() == pytest.approx(0.5, abs=0.03)


def test_teacher_stays_and_the_others_move(make_teacher) -> None:
    teacher = make_teacher()
    before = flat(teacher)
    distiller = Distiller(teacher, config())
    for _ in range(2):
        distiller.step()
    networks = distiller.networks
    assert torch.equal(flat(teacher), before)
    assert torch.equal(flat(networks.teacher), before)
    assert not torch.equal(flat(networks.fake), before)
    assert not torch.equal(flat(networks.generator), before)
    assert torch.equal(flat(networks.fake_view), flat(networks.fake))
    assert torch.equal(flat(networks.generator_view), flat(networks.generator))
    assert networks.fake.training and networks.generator.training
    assert not networks.fake_view.training and not networks.generator_view.training


def test_first_average_is_a_copy(make_teacher) -> None:
    distiller = Distiller(make_teacher(), config())
    distiller.step()
    average = flat(distiller.generator.network)
    assert torch.equal(average, flat(distiller.networks.generator))
    distiller.step()
    assert not torch.equal(flat(distiller.generator.network), flat(distiller.networks.generator))


def test_a_non_finite_gradient_leaves_everything_bit_identical(make_teacher) -> None:
    distiller = Distiller(make_teacher(), config())
    distiller.step()
    state = {k: v.clone() for k, v in distiller.networks.generator.state_dict().items()}
    average = flat(distiller.generator.network)
    last = list(distiller.networks.generator.parameters())[-1]
    hook = last.register_hook(lambda gradient: gradient * float("nan"))
    metrics = distiller.step()
    hook.remove()
    assert metrics["skipped"].item() == 1
    assert distiller.n_img == 16
    for name, value in distiller.networks.generator.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(flat(distiller.generator.network), average)
    assert distiller.step()["skipped"].item() == 1


def test_clamp_goes_on_as_the_authors_do(make_teacher) -> None:
    distiller = Distiller(make_teacher(), config(nonfinite="clamp"))
    before = flat(distiller.networks.generator)
    last = list(distiller.networks.generator.parameters())[-1]
    hook = last.register_hook(lambda gradient: gradient * float("nan"))
    metrics = distiller.step()
    hook.remove()
    assert metrics["skipped"].item() == 0
    after = flat(distiller.networks.generator)
    assert torch.isfinite(after).all() and not torch.equal(after, before)


def test_gradients_take_the_memory_format_of_their_parameters() -> None:
    """Fused Adam reads gradient and parameter side by side, whatever their strides say."""
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    shared = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    x = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)

    def loss_of(draws) -> torch.Tensor:
        return torch.conv2d(x, weight).square().sum((1, 2, 3)) + (shared[0] + shared[1])

    rounds = [KeyedDraws("FAKE", torch.tensor(0), torch.arange(2))] * 3
    accumulate([weight, *shared], rounds, loss_of, 1.0)
    expected = torch.autograd.grad(torch.conv2d(x, weight).square().sum(), weight)[0] * 3
    assert weight.grad.stride() == weight.stride()
    torch.testing.assert_close(weight.grad, expected)
    assert [p.grad.tolist() for p in shared] == [[3, 3], [3, 3]]


def test_dropout_can_be_switched_on_in_a_network_built_without(make_teacher) -> None:
    distiller = Distiller(make_teacher(dropout=0), config(dropout=0.4))
    values = {
        module.dropout for module in distiller.networks.fake.modules() if hasattr(module, "dropout")
    }
    assert values == {0.4}


def test_learning_rate_decays_only_when_asked() -> None:
    assert config().lr_factor(999) == 1.0
    decaying = config(lr_decay=0.5)
    total = decaying.iterations * decaying.batch
    assert decaying.lr_factor(total // 2) == pytest.approx(1.0, abs=0.02)
    assert decaying.lr_factor(3 * total // 4) == pytest.approx(0.5, abs=0.02)


def test_state_dict_round_trip_is_exact(make_teacher) -> None:
    one, two = Distiller(make_teacher(), config()), Distiller(make_teacher(), config())
    one.step()
    two.load_state_dict(one.state_dict())
    one.step(), two.step()
    assert torch.equal(flat(one.networks.generator), flat(two.networks.generator))
    assert torch.equal(flat(one.generator.network), flat(two.generator.network))


def test_labels_of_the_generator_are_checked(make_teacher) -> None:
    distiller = Distiller(make_teacher(3), config())
    assert distiller.sample(5).shape == (5, 1, 8, 8)
    assert distiller.sample(2, labels=torch.tensor([0, 2])).abs().max() <= 1
    with pytest.raises(InputError, match=r"labels in 0\.\.\.2"):
        distiller.sample(2, labels=torch.tensor([0, 3]))
    with pytest.raises(InputError, match="without classes"):
        Distiller(make_teacher(), config()).sample(2, labels=torch.tensor([0, 1]))
