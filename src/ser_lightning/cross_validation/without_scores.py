"""Tables and figures of the four papers that report no score of a system, for the ledger: what shows the same here."""

_BEST = "default/seed-0/fold-00/checkpoints/best.ckpt"
_FIGURE_6 = " --rows ".join(("", "'no smoothing'", "'uniform alpha=0.2'", "'unigram alpha=0.2'"))
_SYSTEMS = [f"runs/ando2019/{system}/iemocap/{_BEST}" for system in ("hard", "soft", "mlee")]
_FIGURE_3 = " --checkpoint ".join(("", *_SYSTEMS))


def _embeddings(corpus: str) -> str:
    rows = (
        f"s3_ghostvlad/{corpus}/S3_pre-trained_with_ghost_clusters",
        f"s4_triplet/{corpus}/S4_triplet_loss_and_SVM",
        f"s5_emotion_constraint/{corpus}/S5_the_proposed_system",
    )
    return f"`ser embeddings {' '.join(f'runs/mocanu2021/{row}/seed-0' for row in rows)}`, after Table 2's rows"


# What, and how to come by it, in Markdown.
WITHOUT_SCORES = (
    (
        "Huang et al. 2020, Figure 6: confusion matrices without smoothing, with uniform and with unigram smoothing",
        f"in the report of `ser table run experiments/huang2020/figure5.yaml{_FIGURE_6} --data.init_args.root IEMOCAP`",
    ),
    (
        "Zhou & Liu 2020, Figure 2: confusion matrices",
        "in the report of `ser table run experiments/zhou2020/table2.yaml --rows baseline --rows 'FL gamma=2 alpha=2' "
        "--data.init_args.root IEMOCAP`",
    ),
    (
        "Ando et al. 2019, Table 1: ratio of emotion existence",
        "`tests/data_modules/test_iemocap.py` holds ours against the paper's, where the corpus is on disk",
    ),
    (
        "Ando et al. 2019, Table 2: layers of the network",
        "the classes on its [page](systems/ando2019.md#code), and their tests",
    ),
    (
        "Ando et al. 2019, Figure 3: attention over time",
        f"`ser attention RECORDING.wav{_FIGURE_3}`, after Table 3's rows",
    ),
    (
        "Mocanu et al. 2021, Table 1: ten folds of actors",
        "`ser audit --config experiments/mocanu2021/crema_d/s1_scratch.yaml --data.init_args.root CREMA_D`",
    ),
    (
        "Mocanu et al. 2021, Table 3: other papers' systems",
        "not legible in the text at hand, so not quoted; its own row is Table 2's S5",
    ),
    ("Mocanu et al. 2021, Figure 6: embeddings under three losses, CREMA-D", _embeddings("crema_d")),
    ("Mocanu et al. 2021, Figure 7: the same, RAVDESS", _embeddings("ravdess")),
    ("Mocanu et al. 2021, Figure 9: confusion matrices", "in the reports of Table 2's commands"),
    (
        "Huang et al. 2020, Figures 1, 2, 4; Zhou & Liu 2020, Figure 1; Ando et al. 2019, Figures 1, 2; "
        "Mocanu et al. 2021, Figures 1, 2, 4, 5",
        "drawings of a method: nothing was measured",
    ),
    ("Mocanu et al. 2021, Figures 3, 8", "not in the text at hand"),
)
