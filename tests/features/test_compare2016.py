"""The 6373 functionals, against openSMILE's own."""

import numpy as np
import pytest
import torch

from ser_lightning.features import ComParE2016, build_extractor

opensmile = pytest.importorskip("opensmile")


def test_functionals_equal_opensmiles_alone_and_in_a_batch() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype(np.float32)
    extractor = build_extractor(ComParE2016().configuration())
    frames, lengths = extractor(torch.from_numpy(noise), torch.tensor([16000, 9000]))
    assert frames.shape == (2, 1, 6373)
    assert lengths.tolist() == [1, 1]
    smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)
    for row, clip in zip(frames, (noise[0], noise[1, :9000]), strict=True):
        np.testing.assert_array_equal(row[0].numpy(), smile(clip, 16000)[0, :, 0])


def test_the_shortest_clip_has_finite_functionals() -> None:
    frames, _ = ComParE2016()(torch.full((1, 1), 0.1), torch.tensor([1]))
    assert frames.isfinite().all()
