"""What one stage hands to the next, and what it refuses to take."""

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
    return {"state_dict": weights, "ser_lightning": {"system": EXISTENCE, "origin": origin}}


def test_a_stage_is_read_as_it_was_saved(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "best.ckpt")
    read = read_stage(tmp_path / "best.ckpt", "existence_checkpoint", MultiLabelEmotionExistence)
    assert read["ser_lightning"] == checkpoint()["ser_lightning"]
    assert torch.equal(read["state_dict"]["encoder.weight"], torch.ones(2, 3))


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (lambda path: None, "which is not there; train it first"),
        (lambda path: path.write_bytes(b"no weights"), "which is no checkpoint"),
        (lambda path: path.write_bytes(b""), "which is no checkpoint"),
        (lambda path: path.write_text("hello world"), "which is no checkpoint"),
        (lambda path: torch.save(torch.ones(2), path), "which is no checkpoint"),
        (lambda path: torch.save([1, 2], path), "which is no checkpoint"),
        (lambda path: torch.save({"state_dict": DominantEmotionRecognition}, path), "more than weights and plain data"),
        (lambda path: path.mkdir(), "a folder; give a file, such as a run's checkpoints/best.ckpt"),
        (lambda path: torch.save({"state_dict": {}}, path), "which holds no system of this suite"),
    ],
)
def test_what_is_no_checkpoint_of_the_suite_is_refused_with_argument_and_file(
    write: Callable[[Path], None], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "best.ckpt"
    write(path)
    with pytest.raises(ConfigurationError, match=named) as caught:
        read_stage(path, "existence_checkpoint", MultiLabelEmotionExistence)
    assert f"model.init_args.existence_checkpoint is {path}" in str(caught.value)


@pytest.mark.parametrize("part", [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999])
def test_a_checkpoint_that_is_cut_off_is_one_error_with_its_name_wherever_it_is_read(
    part: float, tmp_path: Path
) -> None:
    whole = io.BytesIO()
    torch.save(checkpoint() | {"more": torch.randn(100, 50)}, whole)
    path = tmp_path / "best.ckpt"
    path.write_bytes(whole.getvalue()[: int(part * whole.tell())])
    for named, read in (
        (f"model.init_args.existence_checkpoint is {path}, which", lambda: read_stage(path, "existence_checkpoint")),
        (str(path), lambda: read_checkpoint(path)),
    ):
        with pytest.raises(ConfigurationError) as caught:
            read()
        assert str(caught.value) == (
            f"{named} is no checkpoint, or not all of one; copy it again, delete it and train it anew, or give "
            "another file"
        )


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2)])
def test_what_is_saved_and_no_checkpoint_is_refused_by_whoever_reads_it(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "saved.ckpt")
    with pytest.raises(ConfigurationError, match=r"saved\.ckpt is no checkpoint"):
        read_checkpoint(tmp_path / "saved.ckpt")


def test_a_path_below_a_file_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "best.ckpt"
    with pytest.raises(ConfigurationError, match="which is not there; train it first"):
        read_stage(path, "existence_checkpoint")
    with pytest.raises(ConfigurationError, match="no such checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_that_may_not_be_read_keeps_that_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(PermissionError):
        read_stage(tmp_path / "best.ckpt", "existence_checkpoint")


def test_a_stage_that_is_not_given_is_asked_for_by_its_argument() -> None:
    with pytest.raises(ConfigurationError, match=r"model\.init_args\.existence_checkpoint is missing"):
        read_stage(None, "existence_checkpoint", MultiLabelEmotionExistence)


def test_a_stage_of_another_system_is_refused_with_both_systems(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "best.ckpt")
    with pytest.raises(ConfigurationError, match=r"best\.ckpt") as caught:
        read_stage(tmp_path / "best.ckpt", "dominant_checkpoint", DominantEmotionRecognition)
    assert EXISTENCE in str(caught.value)
    assert "systems.DominantEmotionRecognition" in str(caught.value)
    assert "dominant_checkpoint" in str(caught.value)


def test_frames_of_another_extractor_are_refused_with_both() -> None:
    check_same_extractor(checkpoint(), STAGE, {"class_path": "A"})
    with pytest.raises(ConfigurationError, match=r"best\.ckpt") as caught:
        check_same_extractor(checkpoint(), STAGE, {"class_path": "B"})
    assert "{'class_path': 'A'}" in str(caught.value)
    assert "{'class_path': 'B'}" in str(caught.value)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_speakers_heard_before_are_refused_by_name_and_set(stage: str) -> None:
    evaluated = {"validation": ["Ses03F"], "test": ["Ses03M"]} | {stage: ["Ses05F", "Ses02M"]}
    with pytest.raises(ConfigurationError, match=f"Ses02M.*{stage} set") as caught:
        check_unseen_speakers(checkpoint(), STAGE, "iemocap", evaluated, "now")
    assert str(STAGE) in str(caught.value)
    assert "Ses05F" not in str(caught.value)


def test_a_stage_of_the_very_same_split_is_accepted_where_folds_share_all_speakers() -> None:
    everyone = {"validation": ["Ses01F", "Ses02M"], "test": ["Ses01F", "Ses02M"]}
    stage = checkpoint()
    stage["ser_lightning"]["origin"]["split_hash"] = "aaaa"
    check_unseen_speakers(stage, STAGE, "iemocap", everyone, "aaaa")
    with pytest.raises(ConfigurationError, match=r"take the checkpoint of the same fold \(of the split bbbb\)"):
        check_unseen_speakers(stage, STAGE, "iemocap", everyone, "bbbb")
    # What comes before it counts by itself.
    stage["ser_lightning"]["origin"]["earlier"] = [checkpoint()["ser_lightning"]["origin"] | {"split_hash": "bbbb"}]
    with pytest.raises(ConfigurationError, match="was trained on Ses01F, Ses02M"):
        check_unseen_speakers(stage, STAGE, "iemocap", everyone, "aaaa")


def test_equally_named_speakers_of_another_corpus_are_other_people() -> None:
    check_unseen_speakers(checkpoint(corpus="voxceleb2"), STAGE, "iemocap", {"test": ["Ses02M"]}, "now")


def test_who_chose_the_epoch_may_validate_again_and_not_test() -> None:
    stage = checkpoint()
    stage["ser_lightning"]["origin"]["validation_speakers"] = ["Ses02F"]
    check_unseen_speakers(stage, STAGE, "iemocap", {"validation": ["Ses02F"], "test": ["Ses03F"]}, "now")
    with pytest.raises(ConfigurationError, match="was validated on Ses02F, who are in this fold's test set"):
        check_unseen_speakers(stage, STAGE, "iemocap", {"test": ["Ses02F"]}, "now")


def test_new_speakers_are_accepted() -> None:
    check_unseen_speakers(checkpoint(), STAGE, "iemocap", {"validation": ["Ses02F"], "test": ["Ses03F"]}, "now")


def test_the_part_that_is_asked_for_is_loaded_and_nothing_else() -> None:
    module = nn.ModuleDict({"inner": nn.Linear(3, 2)})
    load_parts(module, checkpoint(), {"encoder.": "inner."}, STAGE)
    assert torch.equal(module["inner"].weight, torch.ones(2, 3))
    assert torch.equal(module["inner"].bias, torch.zeros(2))


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (nn.Linear(3, 5), r"bias is \(2,\) and \(5,\), there and here"),
        (nn.Linear(3, 2, bias=False), r"bias is \(2,\) and absent, there and here"),
        (nn.Bilinear(3, 3, 2), r"weight is \(2, 3\) and \(2, 3, 3\), there and here"),
        (nn.LayerNorm(2, bias=True), r"weight is \(2, 3\) and \(2,\), there and here"),
    ],
)
def test_weights_that_do_not_fit_are_named_with_file_system_and_both_shapes(module: nn.Module, named: str) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ConfigurationError, match=named) as caught:
        load_parts(module, checkpoint(), {"encoder.": ""}, STAGE)
    assert str(STAGE) in str(caught.value)
    assert EXISTENCE in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_part_that_the_stage_does_not_have_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"bias is absent and \(2,\), there and here"):
        load_parts(nn.Linear(3, 2), checkpoint(), {"encoders.0.": ""}, STAGE)


def earlier(weights: nn.Module, prefix: str = "network.") -> dict[str, Any]:
    """A checkpoint of an earlier stage that has ``weights`` under ``prefix``, and a head."""
    stored = {f"{prefix}{name}": value for name, value in weights.state_dict().items()}
    return checkpoint() | {"state_dict": stored | {"output.weight": torch.ones(2, 2)}}


def test_what_fits_is_taken_and_of_the_rest_it_is_said_why() -> None:
    there = nn.ModuleDict({"same": nn.Linear(3, 2), "wider": nn.Linear(5, 2), "gone": nn.Linear(1, 1)})
    here = nn.ModuleDict({"same": nn.Linear(3, 2), "wider": nn.Linear(4, 2), "fresh": nn.BatchNorm1d(2)})
    before = {name: value.clone() for name, value in here.state_dict().items()}
    taken = load_matching_layers(here, earlier(there), "network.", STAGE)
    assert taken == Transfer(
        loaded=("same.weight", "same.bias"),
        other_shape=("wider.weight", "wider.bias"),
        new=tuple(f"fresh.{name}" for name in here["fresh"].state_dict()),
        unused=("gone.weight", "gone.bias"),
    )
    for name, value in here.state_dict().items():
        assert torch.equal(value, there.state_dict()[name] if name in taken.loaded else before[name]), name
    assert taken.lines() == [
        "  2 loaded: same.weight, same.bias",
        "  2 newly initialised, because the checkpoint's layer has another shape: wider.weight, wider.bias",
        "  5 newly initialised, because the checkpoint lacks them: " + ", ".join(taken.new),
        "  2 of the checkpoint alone, and not used: gone.weight, gone.bias",
    ]


def test_a_bias_is_not_taken_without_the_weights_it_was_trained_with() -> None:
    taken = load_matching_layers(
        nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)}),
        earlier(nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(7, 2)})),
        "network.",
        STAGE,
    )
    assert taken.loaded == ("a.weight", "a.bias")
    with pytest.raises(ConfigurationError, match="no weights that fit"):
        load_matching_layers(nn.Linear(3, 2), earlier(nn.Linear(7, 2)), "network.", STAGE)


def test_nothing_that_fits_is_refused_with_file_system_and_what_was_looked_for() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    for stored in (earlier(nn.Linear(2, 3)), earlier(nn.Linear(3, 2), "encoder.")):
        with pytest.raises(ConfigurationError, match="has no weights that fit") as caught:
            load_matching_layers(module, stored, "network.", STAGE)
        for named in (str(STAGE), EXISTENCE, "'network.'"):
            assert named in str(caught.value)
        assert torch.equal(module.weight, before)


def test_many_weights_are_named_by_as_much_as_they_have_in_common() -> None:
    deep = nn.ModuleDict({"blocks": nn.Sequential(*(nn.Linear(1, 1) for _ in range(9))), "norm": nn.BatchNorm1d(1)})
    (line,) = load_matching_layers(deep, earlier(deep), "network.", STAGE).lines()
    assert line == "  23 loaded: blocks, norm"
    many = nn.ModuleDict({f"part{index}": nn.Linear(1, 1, bias=False) for index in range(10)})
    (line,) = load_matching_layers(many, earlier(many), "network.", STAGE).lines()
    assert line == "  10 loaded: " + ", ".join(f"part{index}" for index in range(8)) + ", ..."


def test_speakers_of_any_stage_before_are_refused() -> None:
    first = checkpoint(speakers=("Ses01F",))["ser_lightning"]["origin"]
    second = checkpoint(corpus="voxceleb2", speakers=("Ses09F",))["ser_lightning"]["origin"] | {"earlier": [first]}
    third = checkpoint(speakers=("Ses04F",))
    third["ser_lightning"]["origin"]["earlier"] = [second]
    check_unseen_speakers(third, STAGE, "iemocap", {"test": ["Ses09F"]}, "now")
    for heard in ("Ses01F", "Ses04F"):
        with pytest.raises(ConfigurationError, match=f"was trained on {heard}, who are in this fold's test set"):
            check_unseen_speakers(third, STAGE, "iemocap", {"test": [heard, "Ses09F"]}, "now")


def test_one_of_several_systems_may_come_before_and_all_are_named_if_it_is_none(tmp_path: Path) -> None:
    torch.save(checkpoint(), tmp_path / "best.ckpt")
    systems = (DominantEmotionRecognition, MultiLabelEmotionExistence)
    read_stage(tmp_path / "best.ckpt", "pretrained_checkpoint", *systems)
    with pytest.raises(ConfigurationError, match=r"give that of a .*Dominant.* or a .*SEResNetVLAD"):
        read_stage(tmp_path / "best.ckpt", "pretrained_checkpoint", DominantEmotionRecognition, SEResNetVLAD)
