import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor

from ser_lightning.metrics import (
    EmotionScores,
    SpeakerScores,
    calibration,
    macro_f1,
    recalls,
    scores,
    unweighted_accuracy,
    vote_cross_entropy,
    vote_kl,
    weighted_accuracy,
)


def _random_case(seed: int, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Targets that miss some classes, predictions that are right about half the time, and their confusion matrix."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.randperm(classes, generator=generator)[: 2 + seed % (classes - 1)]
    targets = present[torch.randint(len(present), (80,), generator=generator)]
    guesses = torch.randint(classes, (80,), generator=generator)
    predicted = torch.where(torch.rand(80, generator=generator) < 0.5, targets, guesses)
    metric = EmotionScores(classes)
    metric.update(predicted, targets)
    return targets, predicted, metric.compute()


def test_a_class_without_reference_is_not_a_term_of_ua() -> None:
    # Recalls 1/3 and 1 over the two classes present are 0.667; as a mean over three classes they would be 0.444.
    confusion = torch.tensor([[1, 0, 2], [0, 3, 0], [0, 0, 0]])
    assert unweighted_accuracy(confusion).item() == pytest.approx(2 / 3)


def test_an_absent_class_has_no_recall() -> None:
    result = recalls(torch.tensor([[1, 0, 2], [0, 3, 0], [0, 0, 0]]))
    assert result[:2].tolist() == pytest.approx([1 / 3, 1.0])
    assert result[2].isnan()


def test_scores_of_a_matrix_are_those_a_hand_computes() -> None:
    confusion = torch.tensor([[3, 1], [2, 4]])
    result = scores(confusion)
    assert result["UA"].item() == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert result["WA"].item() == pytest.approx(7 / 10)
    assert result["macro_F1"].item() == pytest.approx((6 / 9 + 8 / 11) / 2)


@pytest.mark.parametrize("seed", range(12))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    targets, predicted, confusion = _random_case(seed)
    present = targets.unique().tolist()
    by_class = sklearn.metrics.recall_score(targets, predicted, labels=present, average=None)
    mean = sklearn.metrics.recall_score(targets, predicted, labels=present, average="macro")
    assert recalls(confusion)[present].tolist() == pytest.approx(by_class.tolist())
    assert unweighted_accuracy(confusion).item() == pytest.approx(mean)
    assert weighted_accuracy(confusion).item() == pytest.approx(sklearn.metrics.accuracy_score(targets, predicted))
    assert macro_f1(confusion).item() == pytest.approx(sklearn.metrics.f1_score(targets, predicted, average="macro"))


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", range(4))
def test_ua_is_scikit_learns_balanced_accuracy(seed: int) -> None:
    targets, predicted, confusion = _random_case(seed)
    expected = sklearn.metrics.balanced_accuracy_score(targets, predicted)
    assert unweighted_accuracy(confusion).item() == pytest.approx(expected)


def test_scores_are_float64_scalars_invariant_to_scaled_counts() -> None:
    confusion = torch.tensor([[3, 1], [2, 4]])
    for name, value in scores(confusion).items():
        assert value.dtype == torch.float64, name
        assert value.shape == (), name
        assert value == scores(confusion * 1_000_000_007)[name], name


def test_scores_without_any_utterance_are_not_a_number() -> None:
    assert all(value.isnan() for value in scores(torch.zeros(3, 3, dtype=torch.long)).values())


def test_matrices_side_by_side_score_as_each_by_itself() -> None:
    matrices = torch.stack([_random_case(seed)[2] for seed in range(6)]).reshape(2, 3, 5, 5)
    for function in (recalls, unweighted_accuracy, weighted_accuracy):
        together = function(matrices)
        for row in range(2):
            for column in range(3):
                assert torch.allclose(together[row, column], function(matrices[row, column]), equal_nan=True)


def test_batch_sizes_never_change_the_matrix() -> None:
    targets, predicted, whole = _random_case(3)
    metric = EmotionScores(5)
    for part in (slice(0, 1), slice(1, 50), slice(50, 50), slice(50, 80)):
        metric.update(predicted[part], targets[part])
    assert torch.equal(metric.compute(), whole)
    assert whole.sum() == 80
    expected = sklearn.metrics.confusion_matrix(targets, predicted, labels=range(5))
    assert whole.tolist() == expected.tolist()


def test_logits_are_decided_by_the_largest() -> None:
    logits = torch.tensor([[0.1, 3.0, -1.0], [2.0, 0.0, 1.9]])
    metric = EmotionScores(3)
    metric.update(logits, torch.tensor([1, 2]))
    assert metric.compute().tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert metric.scores(metric.compute())["UA"] == 0.5


def test_shares_of_two_devices_add_up_to_the_whole() -> None:
    targets, predicted, whole = _random_case(4)
    shares = [EmotionScores(5), EmotionScores(5)]
    shares[0].update(predicted[:31], targets[:31])
    shares[1].update(predicted[31:], targets[31:])
    reduce = shares[0]._reductions["confusion"]
    assert callable(reduce)
    assert torch.equal(reduce(torch.stack([share.confusion for share in shares])), whole)


def test_a_reset_forgets_and_a_batch_value_leaves_the_sum_alone() -> None:
    metric = EmotionScores(2)
    first = metric(torch.tensor([0, 1]), torch.tensor([0, 0]))
    second = metric(torch.tensor([1]), torch.tensor([1]))
    assert first.tolist() == [[1, 1], [0, 0]]
    assert second.tolist() == [[0, 0], [0, 1]]
    assert metric.compute().tolist() == [[1, 1], [0, 1]]
    metric.reset()
    assert metric.confusion.sum() == 0


def test_a_class_out_of_range_is_rejected() -> None:
    metric = EmotionScores(3)
    with pytest.raises(IndexError, match="3 is out of bounds"):
        metric.update(torch.tensor([3]), torch.tensor([0]))


def test_a_missing_label_is_rejected() -> None:
    metric = EmotionScores(3)
    with pytest.raises(IndexError, match="3 is out of bounds"):
        metric.update(torch.tensor([0, 1]), torch.tensor([0, -1]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_counting_a_batch_does_not_wait_for_the_gpu() -> None:
    metric = EmotionScores(4).to("cuda")
    predictions, targets = torch.rand(32, 4, device="cuda"), torch.randint(4, (32,), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(predictions, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert metric.compute().sum().item() == 32


def _distributions(seed: int, utterances: int = 200, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted distributions, references they are right about half the time, and votes of which some rows are zero."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = (2 * torch.randn(utterances, classes, generator=generator)).softmax(1)
    guesses = torch.randint(classes, (utterances,), generator=generator)
    labels = torch.where(torch.rand(utterances, generator=generator) < 0.5, probabilities.argmax(1), guesses)
    counts = torch.randint(-2, 3, (utterances, classes), generator=generator).clamp(min=0)
    return probabilities, labels, counts / counts.sum(1, keepdim=True).clamp(min=1)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_equals_plain_numpy_over_fifteen_bins(seed: int) -> None:
    probabilities, labels, _ = _distributions(seed)
    confidence, decided = probabilities.double().max(1).values.numpy(), probabilities.argmax(1).numpy()
    expected = 0.0
    for lower in np.arange(15) / 15:
        inside = (confidence > lower) & (confidence <= lower + 1 / 15)
        if inside.any():
            accuracy = (decided == labels.numpy())[inside].mean()
            expected += inside.mean() * abs(accuracy - confidence[inside].mean())
    assert expected > 0.05
    found = calibration(probabilities, labels, probabilities.argmax(1)).error
    assert found.item() == pytest.approx(expected, abs=1e-7)


def test_calibration_error_is_zero_if_calibrated_and_grows() -> None:
    labels, predicted = torch.tensor([0, 0, 0, 1]), torch.zeros(4, dtype=torch.long)
    assert calibration(torch.tensor([[0.75, 0.25]] * 4), labels, predicted).error.item() == pytest.approx(0)
    assert calibration(torch.tensor([[1.0, 0.0]] * 4), labels, predicted).error.item() == pytest.approx(0.25)


def test_a_confidence_of_one_shares_the_last_bin() -> None:
    probabilities = torch.tensor([[1.0, 0.0]] * 100 + [[0.95, 0.05]] * 100)
    labels, predicted = torch.tensor([0, 1] * 50 + [0] * 100), torch.zeros(200, dtype=torch.long)
    found = calibration(probabilities, labels, predicted)
    assert found.utterances.tolist() == [0] * 14 + [200]
    assert found.error.item() == pytest.approx(0.975 - 0.75)


def test_a_bin_holds_its_upper_edge() -> None:
    edges = calibration(torch.ones(1, 2), torch.tensor([0]), torch.tensor([0])).edges
    found = calibration(torch.stack([1 - edges, edges], dim=1), torch.ones(16).long(), torch.ones(16).long())
    assert found.utterances.tolist() == [2] + [1] * 14  # the first bin holds 0 as well


def test_a_probability_rounded_above_one_is_not_a_logit() -> None:
    found = calibration(torch.tensor([[1.0005, 0.0], [0.5, 0.5]]), torch.tensor([0, 0]), torch.tensor([0, 0]))
    assert found.error.item() == pytest.approx((0.0005 + 0.5) / 2, abs=1e-6)


def test_calibration_uses_predicted_not_most_probable_classes() -> None:
    probabilities = torch.tensor([[0.3, 0.6, 0.1], [0.3, 0.6, 0.1]])
    found = calibration(probabilities, torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert found.utterances[4] == 2
    assert (found.confidence[4].item(), found.accuracy[4].item()) == pytest.approx((0.3, 0.5))


@pytest.mark.parametrize("seed", range(3))
def test_vote_scores_equal_plain_numpy_over_voted_utterances(seed: int) -> None:
    probabilities, _, votes = _distributions(seed)
    crosses, divergences = [], []
    for p, q in zip(probabilities.double().numpy(), votes.double().numpy(), strict=True):
        if q.sum() > 0:
            crosses.append(-sum(q[k] * np.log(p[k]) for k in range(4)))
            divergences.append(sum(q[k] * np.log(q[k] / p[k]) for k in range(4) if q[k] > 0))
    assert 0 < len(crosses) < len(votes)
    assert vote_cross_entropy(probabilities, votes).item() == pytest.approx(np.mean(crosses))
    assert vote_kl(probabilities, votes).item() == pytest.approx(np.mean(divergences))


def test_divergence_of_the_votes_themselves_is_zero() -> None:
    votes = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    predicted = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.1, 0.2, 0.7]])
    assert vote_kl(predicted, votes).item() == pytest.approx(0, abs=1e-12)
    assert vote_cross_entropy(predicted, votes).item() == pytest.approx(np.log(2) / 2)


def test_zero_probability_is_finite_and_no_votes_give_nan() -> None:
    certain = torch.tensor([[1.0, 0.0]])
    assert vote_cross_entropy(certain, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(15.94, abs=0.01)
    assert vote_cross_entropy(certain, torch.zeros(1, 2)).isnan()
    assert vote_kl(certain, torch.zeros(1, 2)).isnan()


def _speaker_case(seed: int, speakers: int = 12) -> tuple[Tensor, Tensor]:
    """Scores that are often right, and targets in which some speakers never occur."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(speakers - 3, (90,), generator=generator)
    scores = torch.randn(90, speakers, generator=generator)
    scores[torch.arange(90), targets] += 1.0
    return scores, targets


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top", [1, 5, 20])
def test_speakers_scores_are_those_of_a_plain_loop(seed: int, top: int) -> None:
    scores, targets = _speaker_case(seed)
    metric = SpeakerScores(12, top)
    metric.update(scores, targets)
    recognised, likely = np.zeros(12), np.zeros(12)
    for row, target in zip(scores.numpy(), targets.tolist(), strict=True):
        order = sorted(range(12), key=lambda speaker: -row[speaker])
        recognised[target] += order[0] == target
        likely[target] += target in order[:top]
    utterances = np.bincount(targets.numpy(), minlength=12)
    found = metric.scores(metric.compute())
    assert (utterances == 0).any()
    assert found["WA"].item() == pytest.approx(recognised.sum() / 90)
    assert found["top_5"].item() == pytest.approx(likely.sum() / 90)
    present = utterances > 0
    assert found["UA"].item() == pytest.approx((recognised[present] / utterances[present]).mean())
    assert found["WA"] <= found["top_5"]
    assert tuple(found) == SpeakerScores.names


def test_the_five_likeliest_speakers_are_the_top_unless_told() -> None:
    scores = torch.arange(7.0, 0.0, -1.0).repeat(2, 1)  # speaker 0 is the likeliest
    metric = SpeakerScores(7)
    metric.update(scores, torch.tensor([4, 5]))
    assert SpeakerScores.scores(metric.compute())["top_5"].item() == 0.5


@pytest.mark.parametrize("kind", [EmotionScores, SpeakerScores])
def test_utterances_are_counted_in_integers(kind: type[EmotionScores] | type[SpeakerScores]) -> None:
    metric = kind(3)
    metric.update(torch.eye(3), torch.arange(3))  # in float32, counts end at 16,777,216
    assert metric.compute().dtype == torch.long


def test_speakers_scores_are_those_of_their_confusion_matrix() -> None:
    scores_of_speakers, targets = _speaker_case(5)
    metric, matrix = SpeakerScores(12), EmotionScores(12)
    metric.update(scores_of_speakers, targets)
    matrix.update(scores_of_speakers, targets)
    found, expected = metric.scores(metric.compute()), scores(matrix.compute())
    assert found["UA"].item() == pytest.approx(expected["UA"].item())
    assert found["WA"].item() == pytest.approx(expected["WA"].item())


def test_batches_and_devices_never_change_speakers_scores() -> None:
    scores, targets = _speaker_case(6)
    whole = SpeakerScores(12)
    whole.update(scores, targets)
    shares = [SpeakerScores(12), SpeakerScores(12)]
    for part in (slice(0, 1), slice(1, 50), slice(50, 50)):
        shares[0].update(scores[part], targets[part])
    shares[1].update(scores[50:], targets[50:])
    reduce = shares[0]._reductions["counts"]
    assert callable(reduce)
    assert torch.equal(reduce(torch.stack([share.counts for share in shares])), whole.compute())
    whole.reset()
    assert not whole.counts.any()


def test_fewer_speakers_than_the_likeliest_are_all_likely() -> None:
    metric = SpeakerScores(3)
    metric.update(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([0, 2]))
    found = metric.scores(metric.compute())
    assert {name: value.item() for name, value in found.items()} == {"UA": 0.5, "WA": 0.5, "top_5": 1.0}


def test_speaker_scores_need_memory_linear_in_speakers() -> None:
    assert SpeakerScores(5994).counts.numel() == 3 * 5994
