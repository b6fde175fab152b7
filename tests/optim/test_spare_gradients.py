"""The memory of the first gradient becomes that of the perturbed weights, unless somebody could tell."""

import weakref

import pytest
import torch
from torch import nn

from saddlescope.optim import ASAM, SAM, FriendlySAM, RadiusCap


def keeps_nothing(gradient):
    return None


def holds(gradient):
    return gradient


def holds_in_a_list(gradient):
    return [gradient]


def looks(gradient):
    return gradient[:1]


def detaches(gradient):
    return gradient.detach()


def of_numpy(gradient):
    return gradient.numpy()


def saves_for_backward(gradient):
    return (gradient * torch.ones(3, requires_grad=True)).square()


LOOKERS = [holds, holds_in_a_list, looks, detaches, of_numpy, saves_for_backward]


def trained(look=keeps_nothing, steps=3, set_to_none=True, **options):
    """Return the weight, where first gradients were and the weights in second passes, and what the looks saw."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.tensor([0.3, -0.2, 0.7]))
    opt = SAM(torch.optim.SGD([w], lr=0.1), rho=0.3, **options)
    gradients, weights, seen = [], [], []

    def closure():
        weights.append(w.data_ptr())
        opt.zero_grad(set_to_none)
        loss = (w**4).sum()
        loss.backward()
        gradients.append(w.grad.data_ptr())
        if look(w.grad) is not None:
            seen.append((look(w.grad), w.grad.clone()))
        return loss

    for _ in range(steps):
        opt.step(closure)
    return w, gradients[::2], weights[1::2], seen


def test_the_perturbed_weights_lie_where_the_gradient_was_and_nothing_is_allocated():
    w, gradients, weights, _ = trained()
    assert weights == gradients


def test_the_steps_are_those_of_weights_in_memory_of_their_own():
    w, gradients, weights, _ = trained(holds)
    assert all(place not in gradients for place in weights)
    assert torch.equal(w, trained()[0])


def test_gradients_set_to_zero_are_not_the_perturbed_weights():
    assert torch.equal(trained(set_to_none=False)[0], trained(holds)[0])


def test_the_memory_is_let_go_with_the_step():
    w = nn.Parameter(torch.tensor([0.3, -0.2]))
    opt = SAM(torch.optim.SGD([w], lr=0.1), rho=0.3)
    gradients = []

    def closure():
        opt.zero_grad()
        loss = (w**4).sum()
        loss.backward()
        gradients.append(weakref.ref(w.grad))
        return loss

    opt.step(closure)
    assert [gradient() is None for gradient in gradients] == [True, False]


@pytest.mark.parametrize("look", LOOKERS)
def test_whoever_looks_at_a_gradient_sees_it_unchanged(look):
    for kept, values in trained(look)[-1]:
        if look is saves_for_backward:
            (kept.sum()).backward()  # refuses if what it saved had been written over
        else:
            kept = kept[0] if isinstance(kept, list) else torch.as_tensor(kept)
            assert torch.equal(kept, values[: len(kept)])


def test_a_gradient_with_a_graph_is_kept():
    w = nn.Parameter(torch.tensor([0.3, -0.2]))
    opt = SAM(torch.optim.SGD([w], lr=0.1), rho=0.3)
    places = []

    def closure():
        places.append(w.data_ptr())
        opt.zero_grad()
        loss = (w**4).sum()
        loss.backward(create_graph=True)
        places.append(w.grad.data_ptr())
        return loss

    opt.step(closure)
    assert places[2] != places[1]


@pytest.mark.parametrize("variant", [ASAM(), FriendlySAM()])
def test_a_variant_that_needs_the_gradient_keeps_it(variant):
    _, gradients, weights, _ = trained(variant=variant)
    assert all(place not in gradients for place in weights)


def test_a_cap_by_the_ascent_sees_what_it_sees_of_weights_in_memory_of_their_own():
    assert torch.equal(trained(radius_cap=RadiusCap(form="ascent"))[0], trained(holds, radius_cap=RadiusCap())[0])


def test_two_steps_by_hand_leave_the_gradient():
    w = nn.Parameter(torch.tensor([0.3, -0.2]))
    opt = SAM(torch.optim.SGD([w], lr=0.1), rho=0.3)
    (w**4).sum().backward()
    before = w.grad.clone()
    opt.first_step()
    assert torch.equal(w.grad, before)
    opt.second_step()


def test_an_error_in_the_second_pass_brings_the_weights_home():
    w = nn.Parameter(torch.tensor([0.3, -0.2]))
    opt = SAM(torch.optim.SGD([w], lr=0.1), rho=0.3)
    values, home = w.detach().clone(), w.data_ptr()

    def closure():
        if w.data_ptr() != home:
            raise InterruptedError
        opt.zero_grad()
        loss = (w**4).sum()
        loss.backward()
        return loss

    with pytest.raises(InterruptedError):
        opt.step(closure)
    assert torch.equal(w, values)
    assert w.data_ptr() == home
