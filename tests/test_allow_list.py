"""Nothing outside the allow-list is imported, let alone run; our classes are named by public paths."""

import importlib
import pkgutil
import sys
from types import ModuleType

import pytest

from data_modules.ravdess import RAVDESS
from ser_lightning import features, losses, systems
from ser_lightning.allow_list import check_class_paths, public_path, shortest_path
from ser_lightning.data.protocols import ActorFolds
from ser_lightning.errors import ConfigurationError
from ser_lightning.nn import encoders, pooling


def test_a_foreign_class_path_is_rejected_with_key_and_way_out() -> None:
    configuration = {"model": {"init_args": {"parts": [{"class_path": "torch.nn.ReLU"}, {"class_path": "os.system"}]}}}
    with pytest.raises(ConfigurationError) as caught:
        check_class_paths(configuration, "evil.yaml")
    message = str(caught.value)
    assert message.startswith("evil.yaml: model.init_args.parts[1].class_path is 'os.system'")
    assert "--allow os" in message


def test_lightnings_private_key_is_walked_too() -> None:
    with pytest.raises(ConfigurationError, match=r"_class_path is 'subprocess.Popen'"):
        check_class_paths({"_class_path": "subprocess.Popen"}, "x.ckpt")


def test_a_prefix_is_a_module_not_a_beginning_of_a_word() -> None:
    with pytest.raises(ConfigurationError, match=r"torch.nnx.Evil"):
        check_class_paths({"class_path": "torch.nnx.Evil"}, "x.yaml")


def test_our_classes_torchs_layers_and_what_the_user_trusts_pass() -> None:
    for path in ("ser_lightning.systems.PooledLSTM", "torch.optim.Adam", "data_modules.ravdess.RAVDESS", "RAVDESS"):
        check_class_paths({"class_path": path}, "x.yaml")
    check_class_paths({"class_path": "mine.corpora.Mine"}, "x.yaml", extra=["mine"])


@pytest.mark.parametrize("package", [systems, losses, features, encoders, pooling])
def test_what_a_package_exports_is_named_by_it(package: ModuleType) -> None:
    classes = [value for value in (getattr(package, name) for name in package.__all__) if isinstance(value, type)]
    assert classes
    assert [public_path(kind) for kind in classes] == [f"{package.__name__}.{kind.__name__}" for kind in classes]


@pytest.mark.parametrize("package", [systems, losses, features, encoders, pooling])
def test_a_package_exports_every_class_that_a_yaml_can_name(package: ModuleType) -> None:
    base = {
        systems: systems.EmotionClassifier,
        losses: (losses.Criterion, losses.MetricLoss),
        features: features.FeatureExtractor,
        encoders: encoders.Encoder,
        pooling: pooling.Pooling,
    }[package]
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(found.name)
        parts = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, base)]
        own = {kind.__name__ for kind in parts if kind.__module__ == found.name and not kind.__name__.startswith("_")}
        assert own <= set(package.__all__), found.name


def test_a_class_that_no_package_exports_is_named_by_its_module() -> None:
    assert public_path(ActorFolds) == "ser_lightning.data.protocols.ActorFolds"
    assert public_path(RAVDESS) == "data_modules.ravdess.RAVDESS"


def test_a_foreign_class_is_named_by_the_module_for_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ModuleType("mine")
    mine.__all__ = ["Thing"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", mine)
    thing = type("Thing", (), {"__module__": "mine.deep.inside"})
    assert public_path(thing) == "mine.deep.inside.Thing"


def test_a_class_that_has_moved_is_found_where_it_is_exported() -> None:
    assert shortest_path("ser_lightning.systems.nowhere.PooledLSTM") == "ser_lightning.systems.PooledLSTM"
    assert shortest_path("PooledLSTM") == "PooledLSTM"
