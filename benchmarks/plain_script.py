"""What the suite's whole process is compared with: log-Mel frames, two BLSTM layers, test, confusion matrix."""
# Run: python -m benchmarks.plain_script FOLDER, with labels.csv and equally long clips in FOLDER.

import csv
import sys
from pathlib import Path

import matplotlib
import soundfile
import torch
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix, recall_score
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

EPOCHS, BATCH_SIZE, CELLS = 10, 16, 64


class Net(nn.Module):
    """Two BLSTM layers, the mean over time, and a linear layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, CELLS, num_layers=2, bidirectional=True, batch_first=True)
        self.output = nn.Linear(2 * CELLS, num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        """Return logits [B, C] of ``frames`` [B, T, F]."""
        logits: Tensor = self.output(self.lstm(frames)[0].mean(1))
        return logits


def main(folder: Path) -> None:
    """Train, keep the best epoch, test it, and draw the confusion matrix."""
    matplotlib.use("agg")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = list(csv.DictReader((folder / "labels.csv").open()))
    names = sorted({row["label"] for row in rows})
    mel = MelSpectrogram(16000, n_fft=512, win_length=400, hop_length=160, n_mels=40, center=False)
    sets = {}
    for name in ("train", "validation", "test"):
        chosen = [row for row in rows if row["split"] == name]
        clips = [torch.from_numpy(soundfile.read(folder / row["path"], dtype="float32")[0]) for row in chosen]
        frames = torch.stack([mel(clip).clamp_min(1e-10).log().T for clip in clips])
        sets[name] = frames, torch.tensor([names.index(row["label"]) for row in chosen])
    frames, labels = sets["train"]
    mean, deviation = frames.mean((0, 1)), frames.std((0, 1))
    net = Net(len(names))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    best = -1.0
    for _ in range(EPOCHS):
        net.train()
        for batch in torch.split(torch.randperm(len(labels)), BATCH_SIZE):
            loss = nn.functional.cross_entropy(net((frames[batch] - mean) / deviation), labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's
            optimizer.step()
        if (recall := _recall(net, *sets["validation"], mean, deviation)[0]) > best:
            best = recall
            torch.save(net.state_dict(), folder / "plain.pt")
    net.load_state_dict(torch.load(folder / "plain.pt"))
    recall, predicted = _recall(net, *sets["test"], mean, deviation)
    counts = confusion_matrix(sets["test"][1], predicted)
    ConfusionMatrixDisplay(counts, display_labels=names).plot().figure_.savefig(folder / "plain.png")
    print(f"UA {100 * recall:.2f}", counts, sep="\n")


@torch.inference_mode()
def _recall(net: Net, frames: Tensor, labels: Tensor, mean: Tensor, deviation: Tensor) -> tuple[float, Tensor]:
    net.eval()
    predicted = torch.cat([net((part - mean) / deviation).argmax(1) for part in torch.split(frames, BATCH_SIZE)])
    return float(recall_score(labels, predicted, average="macro")), predicted


if __name__ == "__main__":
    main(Path(sys.argv[1]))
