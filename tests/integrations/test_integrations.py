"""SAM inside other people's trainers makes the very steps that a plain loop makes."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from saddlescope.integrations import davda54
from saddlescope.integrations.at_hand import step_from
from saddlescope.integrations.hugging_face import SAMTrainer
from saddlescope.integrations.lightning import sam_guard, sam_precision
from saddlescope.optim import SAM, RadiusCap
from saddlescope.training import make_task

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
Y = X.prod(1, keepdim=True)


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loop(model, opt, batches, scheduler=None):
    """The reference: SAM's own step with a closure."""
    for x, y in batches:

        def closure(x=x, y=y):
            opt.zero_grad()
            loss = (model(x) - y).square().mean()
            loss.backward()
            return loss

        opt.step(closure)
        if scheduler:
            scheduler.step()
    return flat(model)


BATCHES = list(zip(X.split(8), Y.split(8), strict=True))


# code written for davda54/sam


def test_code_written_for_davda54_makes_our_steps():
    model = network()
    expected = loop(model, SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.3), BATCHES)
    points = []
    for two_steps in (True, False):
        model = network()
        optimizer = davda54.SAM(model.parameters(), SGD, 0.3, False, lr=0.1, momentum=0.9)
        assert isinstance(optimizer.base_optimizer, SGD)
        for x, y in BATCHES:
            (model(x) - y).square().mean().backward()
            if two_steps:
                optimizer.first_step(zero_grad=True)
                (model(x) - y).square().mean().backward()
                optimizer.second_step(zero_grad=True)
            else:

                def closure(model=model, x=x, y=y):
                    loss = (model(x) - y).square().mean()
                    loss.backward()
                    return loss

                optimizer.step(closure)
                optimizer.zero_grad()
        points.append(flat(model))
    assert torch.equal(points[0], expected) and torch.equal(points[1], expected)
    with pytest.raises(ValueError, match="first_step"):
        optimizer.step()


def test_a_constructor_of_plain_keywords_for_searches():
    """As a study hands them over: names and numbers, and an optimizer that travels to another process."""
    model = network()
    chosen = {"rho": 0.1, "adaptive": True, "lr": 0.05, "weight_decay": 1e-4}
    opt = davda54.SAM(model.parameters(), AdamW, **chosen)
    loop_davda54(model, opt)
    other, twin = pickle.loads(pickle.dumps((model, opt)))
    assert torch.equal(loop_davda54(model, opt), loop_davda54(other, twin))


def loop_davda54(model, opt):
    for x, y in BATCHES:
        (model(x) - y).square().mean().backward()
        step_from(opt, lambda x=x, y=y: (model(x) - y).square().mean().backward(), zero_grad=True)
    return flat(model)


@pytest.mark.parametrize("on_the_base", [True, False])
def test_a_scheduler_on_either_object(on_the_base):
    model = network()
    opt = davda54.SAM(model.parameters(), SGD, lr=0.1)
    scheduler = StepLR(opt.base_optimizer if on_the_base else opt, step_size=1, gamma=0.5)
    loop_davda54(model, opt)
    scheduler.step()
    assert opt.param_groups[0]["lr"] == opt.base_optimizer.param_groups[0]["lr"] == 0.05


def test_a_second_pass_that_throws_leaves_the_weights():
    model = network()
    opt = SAM(SGD(model.parameters(), lr=0.1), rho=0.3)
    model(X).mean().backward()
    before = flat(model)

    def fails():
        assert not torch.equal(flat(model), before)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="memory"):
        step_from(opt, fails)
    assert torch.equal(flat(model), before)
    model(X).mean().backward()
    step_from(opt, lambda: model(X).mean().backward())


# Lightning


def lightning_run(opt_options=None, callbacks=(), **options):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.seeds = network(0.5), []

        def training_step(self, batch, _index):
            x, y = batch
            self.seeds.append(torch.get_rng_state())
            return (self.model(x) - y).square().mean()

        def configure_optimizers(self):
            opt = SAM(SGD(self.model.parameters(), lr=0.1, momentum=0.9), rho=0.3, **(opt_options or {}))
            return [opt], [{"scheduler": StepLR(opt, step_size=2), "interval": "step"}]

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[sam_guard(), *callbacks],
        **options,
    )
    trainer.fit(module, DataLoader(TensorDataset(X, Y), batch_size=8))
    return module.model, trainer, module.seeds


def reference(seeds, sam_options=None):
    model = network(0.5)
    torch.set_rng_state(seeds[0])
    opt = SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.3, **(sam_options or {}))
    return loop(model, opt, BATCHES, StepLR(opt, step_size=2))


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("limit", [None, 0.1])
def test_lightning_makes_the_steps_of_a_plain_loop(limit, quiet):
    """Dropout masks included; clipping by norm is of the second gradient, as the first only gives a direction."""
    model, trainer, seeds = lightning_run(gradient_clip_val=limit)
    assert trainer.global_step == len(BATCHES) and len(seeds) == 2 * len(BATCHES)
    assert torch.allclose(flat(model), reference(seeds, {"max_grad_norm": limit}), rtol=0, atol=1e-6)


def test_lightning_scales_both_passes(quiet):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # overflows in half precision: every step is skipped
    model, _, _ = lightning_run(plugins=[sam_precision(scaler, device="cpu")])
    assert torch.equal(flat(model), flat(network())) and scaler.get_scale() == 2.0**36
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    model, _, seeds = lightning_run(plugins=[sam_precision(scaler, device="cpu")])
    expected = reference(seeds)
    assert (flat(model) - expected).norm() < 0.02 * (expected - flat(network())).norm()  # half precision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate_grad_batches": 2}, "micro_batches"),
        ({"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, "max_grad_norm"),
    ],
)
def test_lightning_settings_that_change_the_step_are_refused(options, message, quiet):
    with pytest.raises(ValueError, match=message):
        lightning_run(**options)


# Hugging Face


def trainer_class():
    transformers = pytest.importorskip("transformers")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network(0.5)

        def forward(self, x, labels=None):
            output = self.net(x)
            return {"loss": (output - labels).square().mean(), "logits": output}

    class Trainer(SAMTrainer, transformers.Trainer):
        sam_options = {"rho": 0.3}

        def _get_train_sampler(self, *_arguments):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    return transformers, Model, Trainer


def trained(tmp_path, **options):
    transformers, Model, Trainer = trainer_class()
    given = {"per_device_train_batch_size": 8, "max_grad_norm": 0.1, "max_steps": 4, "lr_scheduler_type": "constant"}
    given |= {"save_strategy": "no"}
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True,
        **{**given, **options},
    )  # fmt: skip
    model = Model()
    base = SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=[{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)],
        optimizers=(base, None),
    )
    seeds = []
    original = trainer.training_step

    def seen(*arguments):
        seeds.append(torch.get_rng_state())
        return original(*arguments)

    trainer.training_step = seen
    trainer.train()
    return model.net, trainer, seeds


@pytest.mark.parametrize("parts", [1, 2])
def test_hugging_face_makes_the_steps_of_a_plain_loop(parts, tmp_path):
    """Accumulation, clipping and dropout masks included: ``step()`` without a closure is a SAM step."""
    model, trainer, seeds = trained(tmp_path, gradient_accumulation_steps=parts, max_steps=4 // parts)
    assert trainer.state.global_step == 4 // parts
    expected = network(0.5)
    opt = SAM(SGD(expected.parameters(), lr=0.1, momentum=0.9), rho=0.3, max_grad_norm=0.1)
    torch.set_rng_state(seeds[0])
    for i in range(0, 4, parts):

        def closure(i=i):
            opt.zero_grad()
            for x, y in BATCHES[i : i + parts]:
                loss = (expected(x) - y).square().mean() / parts
                loss.backward()
            return loss

        opt.step(closure)
    assert torch.allclose(flat(model), flat(expected), rtol=0, atol=1e-6)


def test_hugging_face_resumes_bit_for_bit(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "save_safetensors": False}
    transformers, _, _ = trainer_class()
    options = {k: v for k, v in options.items() if k in transformers.TrainingArguments.__dataclass_fields__}
    whole, trainer, _ = trained(tmp_path, **options)
    expected = flat(whole)
    trainer.model.load_state_dict(copy.deepcopy(trainer.model.state_dict()))
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.zero_()
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert torch.equal(flat(trainer.model.net), expected)


def test_hugging_face_in_fp16_is_refused(tmp_path, monkeypatch):
    _, Model, Trainer = trainer_class()
    trainer = Trainer.__new__(Trainer)
    trainer.optimizer, trainer.args = SGD(Model().parameters(), lr=0.1), type("Arguments", (), {"fp16": True})()
    trainer.model = None
    with pytest.raises(ValueError, match="bf16"):
        trainer.create_optimizer()


# accelerate


def test_accelerate_prepares_it_as_any_optimizer():
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    plain = network()
    expected = loop(plain, SAM(SGD(plain.parameters(), lr=0.1, momentum=0.9), rho=0.3), BATCHES)
    model = network()
    inner = SAM(SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.3)
    model, opt = accelerator.prepare(model, inner)
    for x, y in BATCHES:

        def closure(x=x, y=y):
            opt.zero_grad()
            loss = (model(x) - y).square().mean()
            accelerator.backward(loss)
            return loss

        opt.step(closure)
    assert torch.equal(flat(model), expected) and inner.last_step.rho_used == 0.3


# Optuna


def test_a_search_over_the_arguments_leaves_the_radius_that_is_stuck():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    grid = {"rho": [0.1, 2.0], "radius_cap": [False, True], "momentum": [0.0, 0.9]}

    def objective(trial):
        torch.manual_seed(0)
        task, generator = make_task("digits-mlp"), torch.Generator().manual_seed(0)
        optimizer = SAM(
            task.model.parameters(),
            SGD,
            lr=0.1,
            momentum=trial.suggest_float("momentum", 0.0, 0.9),
            rho=trial.suggest_float("rho", 0.01, 3.0, log=True),
            radius_cap=RadiusCap() if trial.suggest_categorical("radius_cap", [False, True]) else None,
        )
        for _ in range(40):
            batch = task.draw(128, generator)

            def closure(batch=batch):
                optimizer.zero_grad()
                loss = task.loss_fn(batch)
                loss.backward()
                return loss

            optimizer.step(closure)
        return task.loss_fn(task.draw(1000, generator)).item()

    study = optuna.create_study(sampler=optuna.samplers.GridSampler(grid, seed=0))
    study.optimize(objective)
    found = {tuple(trial.params.values()): trial.value for trial in study.trials}
    assert len(found) == 8 and study.best_value < 0.5
    assert found[0.9, 2.0, False] > 2.25 > found[0.9, 2.0, True]  # ln 10 = 2.30
    assert study.best_params["momentum"] == 0.9
