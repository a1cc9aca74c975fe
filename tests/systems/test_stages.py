"""Loading of earlier stages' checkpoints, and what is rejected."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ser_lightning.errors import ConfigurationError
from ser_lightning.systems import DominantEmotionRecognition, MultiLabelEmotionExistence, SEResNetVLAD
from ser_lightning.systems.checkpoint import read_checkpoint
from ser_lightning.systems.stages import (
    Transfer,
    check_same_extractor,
    check_unseen_speakers,
    load_matching_layers,
    load_parts,
    read_stage,
)

EXISTENCE = "ser_lightning.systems.MultiLabelEmotionExistence"
STAGE = Path("runs/mlee/fold-00/checkpoints/best.ckpt")


def checkpoint(corpus: str = "iemocap", speakers: tuple[str, ...] = ("Ses01F", "Ses02M")) -> dict[str, Any]:
    origin = {"corpus": corpus, "training_speakers": list(speakers), "extractor": {"class_path": "A"}}
    weights = {
        "encoder.weight": torch.ones(2, 3),
        "encoder.bias": torch.zeros(2),
        "classifier.weight": torch.ones(4, 2),
    }
    entry = {"system": EXISTENCE, "is_pretraining": False, "class_names": [], "configuration": {}, "origin": origin}
    return {"state_dict": weights, "epoch": 0, "ser_lightning": entry}


def test_a_stage_is_read_as_it_was_saved(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "best.ckpt")
    read = read_stage(tmp_path / "best.ckpt", "existence_checkpoint", MultiLabelEmotionExistence)
    assert read["ser_lightning"] == checkpoint()["ser_lightning"]
    assert torch.equal(read["state_dict"]["encoder.weight"], torch.ones(2, 3))


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b"no weights"), "not a checkpoint"),
        (lambda path: path.write_bytes(b""), "not a checkpoint"),
        (lambda path: path.write_text("hello world"), "not a checkpoint"),
        (lambda path: torch.save(torch.ones(2), path), "not a checkpoint"),
        (lambda path: torch.save([1, 2], path), "not a checkpoint"),
        (lambda path: torch.save({"state_dict": DominantEmotionRecognition}, path), "more than weights and plain data"),
        (lambda path: path.mkdir(), "a folder.*checkpoints/best.ckpt"),
        (lambda path: torch.save({"state_dict": {}}, path), "keys are state_dict"),
    ],
)
def test_a_file_that_is_not_a_checkpoint_is_rejected_by_name(
    write: Callable[[Path], None], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    write(path)
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_stage(path, "existence_checkpoint", MultiLabelEmotionExistence)
    assert f"model.init_args.existence_checkpoint is {path}" in str(caught.value)


@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999])
def test_a_truncated_checkpoint_is_one_error_with_its_name(part: float, tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save(checkpoint() | {"more": torch.randn(100, 50)}, whole)
    path = tmp_path / "best.ckpt"
    path.write_bytes(whole.getvalue()[: int(part * whole.tell())])
    for named, read in (
        (f"model.init_args.existence_checkpoint is {path}", lambda: read_stage(path, "existence_checkpoint")),
        (str(path), lambda: read_checkpoint(path)),
    ):
        with pytest.raises(ConfigurationError) as caught:
            read()
        assert str(caught.value).startswith(named)
        assert "incomplete" in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2)])
def test_a_saved_object_that_is_not_a_checkpoint_is_rejected(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "saved.ckpt")
    with pytest.raises(ConfigurationError, match=r"saved\.ckpt .*not a checkpoint"):
        read_checkpoint(tmp_path / "saved.ckpt")


def test_a_path_below_a_file_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "best.ckpt"
    with pytest.raises(ConfigurationError, match=r"existence_checkpoint .*best\.ckpt"):
        read_stage(path, "existence_checkpoint")
    with pytest.raises(ConfigurationError, match=r"best\.ckpt: no such"):
        read_checkpoint(path)


def test_a_checkpoint_that_may_not_be_read_keeps_that_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    torch.save(checkpoint(), tmp_path / "best.ckpt")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        read_stage(tmp_path / "best.ckpt", "existence_checkpoint")


def test_a_stage_that_is_not_given_is_reported_by_its_argument() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.init_args\.existence_checkpoint"):
        read_stage(None, "existence_checkpoint", MultiLabelEmotionExistence)


def test_a_stage_of_another_system_is_rejected_with_both_systems(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "best.ckpt")
    with pytest.raises(ConfigurationError, match=r"best\.ckpt") as caught:
        read_stage(tmp_path / "best.ckpt", "dominant_checkpoint", DominantEmotionRecognition)
    assert EXISTENCE in str(caught.value)
    assert "systems.DominantEmotionRecognition" in str(caught.value)
    assert "dominant_checkpoint" in str(caught.value)


def test_a_stage_of_another_extractor_is_rejected_with_both() -> None:
    check_same_extractor(checkpoint(), STAGE, {"class_path": "A"})
    with pytest.raises(ConfigurationError, match=r"best\.ckpt") as caught:
        check_same_extractor(checkpoint(), STAGE, {"class_path": "B"})
    assert "{'class_path': 'A'}" in str(caught.value)
    assert "{'class_path': 'B'}" in str(caught.value)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_seen_evaluation_speakers_are_reported_by_name_and_set(stage: str) -> None:
    evaluated = {"validation": ["Ses03F"], "test": ["Ses03M"]} | {stage: ["Ses05F", "Ses02M"]}
    with pytest.raises(ConfigurationError, match=f"Ses02M.*{stage}") as caught:
        check_unseen_speakers(checkpoint(), STAGE, "iemocap", evaluated, "now")
    assert str(STAGE) in str(caught.value)
    assert "Ses05F" not in str(caught.value)


def test_a_stage_of_the_same_split_may_share_speakers() -> None:
    everyone = {"validation": ["Ses01F", "Ses02M"], "test": ["Ses01F", "Ses02M"]}
    stage = checkpoint()
    stage["ser_lightning"]["origin"]["split_hash"] = "aaaa"
    check_unseen_speakers(stage, STAGE, "iemocap", everyone, "aaaa")
    with pytest.raises(ConfigurationError, match=r"best\.ckpt .*bbbb"):
        check_unseen_speakers(stage, STAGE, "iemocap", everyone, "bbbb")
    # Earlier stages are checked separately.
    stage["ser_lightning"]["origin"]["earlier"] = [checkpoint()["ser_lightning"]["origin"] | {"split_hash": "bbbb"}]
    with pytest.raises(ConfigurationError, match="trained on Ses01F, Ses02M"):
        check_unseen_speakers(stage, STAGE, "iemocap", everyone, "aaaa")


def test_speakers_of_another_corpus_may_have_the_same_names() -> None:
    check_unseen_speakers(checkpoint(corpus="voxceleb2"), STAGE, "iemocap", {"test": ["Ses02M"]}, "now")


def test_an_earlier_validation_speaker_may_validate_but_not_test() -> None:
    stage = checkpoint()
    stage["ser_lightning"]["origin"]["validation_speakers"] = ["Ses02F"]
    check_unseen_speakers(stage, STAGE, "iemocap", {"validation": ["Ses02F"], "test": ["Ses03F"]}, "now")
    with pytest.raises(ConfigurationError, match=r"validated on Ses02F.*test"):
        check_unseen_speakers(stage, STAGE, "iemocap", {"test": ["Ses02F"]}, "now")


def test_new_speakers_are_accepted() -> None:
    check_unseen_speakers(checkpoint(), STAGE, "iemocap", {"validation": ["Ses02F"], "test": ["Ses03F"]}, "now")


def test_only_the_requested_part_is_loaded() -> None:
    module = nn.ModuleDict({"inner": nn.Linear(3, 2)})
    load_parts(module, checkpoint(), {"encoder.": "inner."}, STAGE)
    assert torch.equal(module["inner"].weight, torch.ones(2, 3))
    assert torch.equal(module["inner"].bias, torch.zeros(2))


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Linear(3, 5), r"bias .*\(2,\) .*\(5,\)"),
        (nn.Linear(3, 2, bias=False), r"bias .*\(2,\) .*absent"),
        (nn.Bilinear(3, 3, 2), r"weight .*\(2, 3\) .*\(2, 3, 3\)"),
        (nn.LayerNorm(2, bias=True), r"weight .*\(2, 3\) .*\(2,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named_with_both_shapes(module: nn.Module, named: str) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ConfigurationError, match=named) as caught:
        load_parts(module, checkpoint(), {"encoder.": ""}, STAGE)
    assert str(STAGE) in str(caught.value)
    assert EXISTENCE in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_part_missing_from_the_stage_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"bias .*absent .*\(2,\)"):
        load_parts(nn.Linear(3, 2), checkpoint(), {"encoders.0.": ""}, STAGE)


def earlier(weights: nn.Module, prefix: str = "network.") -> dict[str, Any]:
    """A checkpoint of an earlier stage that has ``weights`` under ``prefix``, and a head."""
    stored = {f"{prefix}{name}": value for name, value in weights.state_dict().items()}
    return checkpoint() | {"state_dict": stored | {"output.weight": torch.ones(2, 2)}}


def test_fitting_layers_are_loaded_and_the_others_listed() -> None:
    there = nn.ModuleDict({"same": nn.Linear(3, 2), "wider": nn.Linear(5, 2), "gone": nn.Linear(1, 1)})
    here = nn.ModuleDict({"same": nn.Linear(3, 2), "wider": nn.Linear(4, 2), "fresh": nn.BatchNorm1d(2)})
    before = {name: value.clone() for name, value in here.state_dict().items()}
    transfer = load_matching_layers(here, earlier(there), "network.", STAGE)
    assert transfer == Transfer(
        loaded=("same.weight", "same.bias"),
        other_shape=("wider.weight", "wider.bias"),
        new=tuple(f"fresh.{name}" for name in here["fresh"].state_dict()),
        unused=("gone.weight", "gone.bias"),
    )
    for name, value in here.state_dict().items():
        assert torch.equal(value, there.state_dict()[name] if name in transfer.loaded else before[name]), name
    assert transfer.lines() == [
        "  2 loaded: same.weight, same.bias",
        "  2 newly initialised, because the checkpoint's layer has another shape: wider.weight, wider.bias",
        "  5 newly initialised, because the checkpoint lacks them: " + ", ".join(transfer.new),
        "  2 only in the checkpoint, and not used: gone.weight, gone.bias",
    ]


def test_a_bias_is_not_loaded_without_its_weights() -> None:
    transfer = load_matching_layers(
        nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)}),
        earlier(nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(7, 2)})),
        "network.",
        STAGE,
    )
    assert transfer.loaded == ("a.weight", "a.bias")
    with pytest.raises(ConfigurationError, match=r"best\.ckpt .*'network\.'"):
        load_matching_layers(nn.Linear(3, 2), earlier(nn.Linear(7, 2)), "network.", STAGE)


def test_a_checkpoint_without_fitting_layers_is_rejected_by_name() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    for stored in (earlier(nn.Linear(2, 3)), earlier(nn.Linear(3, 2), "encoder.")):
        with pytest.raises(ConfigurationError, match=r"best\.ckpt") as caught:
            load_matching_layers(module, stored, "network.", STAGE)
        for named in (str(STAGE), EXISTENCE, "'network.'"):
            assert named in str(caught.value)
        assert torch.equal(module.weight, before)


def test_many_weights_are_named_by_their_common_prefixes() -> None:
    deep = nn.ModuleDict({"blocks": nn.Sequential(*(nn.Linear(1, 1) for _ in range(9))), "norm": nn.BatchNorm1d(1)})
    (line,) = load_matching_layers(deep, earlier(deep), "network.", STAGE).lines()
    assert line == "  23 loaded: blocks, norm"
    many = nn.ModuleDict({f"part{index}": nn.Linear(1, 1, bias=False) for index in range(10)})
    (line,) = load_matching_layers(many, earlier(many), "network.", STAGE).lines()
    assert line == "  10 loaded: " + ", ".join(f"part{index}" for index in range(8)) + ", ..."


def test_speakers_of_all_earlier_stages_are_checked() -> None:
    first = checkpoint(speakers=("Ses01F",))["ser_lightning"]["origin"]
    second = checkpoint(corpus="voxceleb2", speakers=("Ses09F",))["ser_lightning"]["origin"] | {"earlier": [first]}
    third = checkpoint(speakers=("Ses04F",))
    third["ser_lightning"]["origin"]["earlier"] = [second]
    check_unseen_speakers(third, STAGE, "iemocap", {"test": ["Ses09F"]}, "now")
    for seen in ("Ses01F", "Ses04F"):
        with pytest.raises(ConfigurationError, match=f"trained on {seen},.*test"):
            check_unseen_speakers(third, STAGE, "iemocap", {"test": [seen, "Ses09F"]}, "now")


def test_one_of_several_earlier_systems_is_accepted(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "best.ckpt")
    systems = (DominantEmotionRecognition, MultiLabelEmotionExistence)
    read_stage(tmp_path / "best.ckpt", "pretrained_checkpoint", *systems)
    with pytest.raises(ConfigurationError, match=r"Dominant.*SEResNetVLAD"):
        read_stage(tmp_path / "best.ckpt", "pretrained_checkpoint", DominantEmotionRecognition, SEResNetVLAD)
