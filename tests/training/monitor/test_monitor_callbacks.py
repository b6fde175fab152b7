"""The callbacks train real models with Lightning and Hugging Face, where these are installed."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from saddlescope.integrations.hugging_face import SAMTrainer
from saddlescope.optim import SAM
from saddlescope.training.monitor.callbacks import hugging_face_callback, lightning_callback
from saddlescope.training.monitor.log import read_monitor_log

X = torch.randn(160, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, :1] * X[:, 1:2]).sign()
OPTIONS = {"budget": math.inf, "every": 20, "read_every": 10, "window": 5}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 1))


@pytest.fixture
def lightning(monkeypatch):
    module = pytest.importorskip("lightning", reason="needs Lightning, of the extra 'lightning'")

    class Module(module.LightningModule):
        def __init__(self, rho):
            super().__init__()
            self.model, self.rho = network(), rho

        def training_step(self, batch, index):
            loss = (self.model(batch[0]) - batch[1]).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            base = SGD(self.model.parameters(), lr=0.05)
            return SAM(base, rho=self.rho) if self.rho else base

    def train(rho, folder, epochs, callbacks, **options):
        model = Module(rho)
        trainer = module.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=callbacks,
            logger=options.pop("logger", False),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        torch.manual_seed(1)
        data = DataLoader(TensorDataset(X, Y), batch_size=16, generator=torch.Generator().manual_seed(2), shuffle=True)
        trainer.fit(model, data, **options)
        return model, trainer

    return train


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_lightning(lightning, tmp_path, rho):
    callback = lightning_callback(log=tmp_path / "run.jsonl", **OPTIONS)
    watched, trainer = lightning(rho, tmp_path, 6, [callback])
    alone, _ = lightning(rho, tmp_path, 6, [])
    for a, b in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    log = read_monitor_log(tmp_path / "run.jsonl")
    assert log.signals["step"] == tuple(range(1, 61)) and log.errors == ()
    assert len(log.checks) >= 2 and log.checks[0]["batches"] >= 4
    assert all(map(math.isfinite, (*log.signals["loss"], *log.signals["gradient_norm"][9::10])))
    assert set(log.signals["rho_used"][9::10]) == {rho}
    trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
    again = lightning_callback(log=tmp_path / "run.jsonl", **OPTIONS)
    lightning(rho, tmp_path, 8, [again], ckpt_path=tmp_path / "checkpoint.ckpt")
    assert read_monitor_log(tmp_path / "run.jsonl").signals["step"] == tuple(range(1, 81))


@pytest.mark.filterwarnings("ignore")
def test_lightnings_own_loggers_get_the_numbers(lightning, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    lightning(0.1, tmp_path, 6, [lightning_callback(**OPTIONS)], logger=CSVLogger(tmp_path))
    (metrics,) = tmp_path.rglob("metrics.csv")
    head = metrics.read_text().splitlines()[0].split(",")
    assert {"saddlescope/loss", "saddlescope/gradient_norm", "saddlescope/curvature"} <= set(head)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_hugging_face(tmp_path, rho):
    transformers = pytest.importorskip("transformers", reason="needs transformers, of the extra 'transformers'")
    pytest.importorskip("accelerate", reason="transformers' Trainer needs accelerate")

    class Trainer(SAMTrainer, transformers.Trainer):
        sam_options = {"rho": rho}

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, x, labels):
            out = self.network(x)
            return {"loss": (out - labels).square().mean(), "logits": out}

    def train(callbacks):
        model = Model()
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=6,
            per_device_train_batch_size=16,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            seed=3,
        )
        trainer = (Trainer if rho else transformers.Trainer)(
            model=model,
            args=arguments,
            train_dataset=[{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)],
            optimizers=(SGD(model.parameters(), lr=0.05), None),
            callbacks=callbacks,
        )
        trainer.train()
        return model

    callback = hugging_face_callback(log=tmp_path / "run.jsonl", **OPTIONS)
    watched, alone = train([callback]), train([])
    for a, b in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    log = read_monitor_log(tmp_path / "run.jsonl")
    assert log.signals["step"] == tuple(range(1, 61)) and log.errors == ()
    assert len(log.checks) >= 2
    assert all(map(math.isfinite, (*log.signals["loss"], *log.signals["gradient_norm"][9::10])))
    assert set(log.signals["rho_used"][9::10]) == {rho}
    assert log.signals["loss"][-1] < log.signals["loss"][0]


@pytest.mark.parametrize(
    ("make", "module", "extra"),
    [(lightning_callback, "lightning.pytorch", "lightning"), (hugging_face_callback, "transformers", "transformers")],
)
def test_a_missing_extra_is_named(monkeypatch, make, module, extra):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install 'saddlescope\\[{extra}\\]'"):
        make()
