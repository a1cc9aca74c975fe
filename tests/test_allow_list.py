"""Nothing outside the allow-list is imported, let alone run."""

import pytest

from ser_lightning.allow_list import refuse_foreign_classes
from ser_lightning.errors import ConfigurationError


def test_a_foreign_class_path_is_refused_with_its_place_and_the_way_out() -> None:
    configuration = {"model": {"init_args": {"parts": [{"class_path": "torch.nn.ReLU"}, {"class_path": "os.system"}]}}}
    with pytest.raises(ConfigurationError) as caught:
        refuse_foreign_classes(configuration, "evil.yaml")
    message = str(caught.value)
    assert message.startswith("evil.yaml: model.init_args.parts[1].class_path is 'os.system'")
    assert "--allow os" in message


def test_lightnings_private_key_is_walked_too() -> None:
    with pytest.raises(ConfigurationError, match=r"_class_path is 'subprocess.Popen'"):
        refuse_foreign_classes({"_class_path": "subprocess.Popen"}, "x.ckpt")


def test_a_prefix_is_a_module_not_a_beginning_of_a_word() -> None:
    with pytest.raises(ConfigurationError, match=r"torch.nnx.Evil"):
        refuse_foreign_classes({"class_path": "torch.nnx.Evil"}, "x.yaml")


def test_our_classes_torchs_layers_and_what_the_user_trusts_pass() -> None:
    for path in ("ser_lightning.systems.PooledLSTM", "torch.optim.Adam", "data_modules.ravdess.RAVDESS", "RAVDESS"):
        refuse_foreign_classes({"class_path": path}, "x.yaml")
    refuse_foreign_classes({"class_path": "mine.corpora.Mine"}, "x.yaml", extra=["mine"])
