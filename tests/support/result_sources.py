"""Tables of results that pages quote, and columns of them."""

from documents import ROOT
from result_tables import Source

SMALL = Source(ROOT / "docs/results/cifar10-16x16.md")
CONTROLS = Source(ROOT / "docs/results/controls-16x16/summary.md")
TEACHERS = Source(ROOT / "docs/results/teachers-16x16/summary.md")
ALONE = Source(ROOT / "docs/results/one-teacher-32x32/summary.md")
RECIPE = Source(ROOT / "docs/results/paper-recipe-32x32/summary.md")
LARGE = Source(ROOT / "docs/results/cifar10-32x32/summary.md")
TWO = Source(ROOT / "docs/results/cifar10-32x32-two-seeds/summary.md")
RESULTS, CHOOSING = ROOT / "RESULTS.md", ROOT / "docs/choosing.md"
README, PAPER = ROOT / "README.md", ROOT / "docs/paper.md"
SCORES, RANKING = "side by side/Scores", "side by side/Ranking"
MAIN = "two CPU cores/Results"

DIFFER, ECE = ("the teachers differ", "disagreement %"), (MAIN, "ECE %")
CNLL, NLL, GAP = (SCORES, "cNLL"), (SCORES, "NLL"), (RANKING, "gap closed %")
OF_CONTROLS = (CONTROLS, "Results")
PUBLISHED = (*OF_CONTROLS, "gap closed (published) %")
FAIR = (CONTROLS, "Beside mixup", "gap closed (published) %")
OF_FOUR, OF_TWO, OF_ONE = (
    (TEACHERS, heading, "cNLL") for heading in ("Results", "Beside two", "Beside one")
)
OF_SIXTEEN = (CONTROLS, "Beside plain16", "DEE")
OF_SIXTEEN_BEST = (CONTROLS, "Beside plain16", "DEE (best pool)")
FAIR_BEST = (CONTROLS, "Beside mixup", "gap closed (best pool) %")
LARGE_GAP = (LARGE, "Results", "gap closed (published) %")
LARGE_DIFFER = (LARGE, "Diversity of the teachers", "disagreement %")
LARGE_WRONG = (LARGE, "Diversity of the teachers", "mean member error %")
LARGE_BEST = (LARGE, "Results", "gap closed (best pool) %")
LARGE_FAIR = (LARGE, "Beside mixup", "gap closed (published) %")
RECIPE_GAP = (RECIPE, "Results", "gap closed (published) %")
RECIPE_DISTANCE = (RECIPE, "KL(teachers ‖ student)", "test inputs")
RECIPE_NOISE = (RECIPE, "Ranking", "OOD noise %")
AFTER_BE_NONE_CORRUPTED = (RECIPE, "Against be_none_tau4, corrupted", "Δ cNLL")
AFTER_BE_NONE = (RECIPE, "Against be_none_tau4", "Δ cNLL")
TWO_GAP = (TWO, "Results", "gap closed (published) %")
TWO_CNLL, TWO_NLL = (TWO, "Results", "cNLL"), (TWO, "Results", "NLL")
TWO_BEST = (TWO, "Results", "gap closed (best pool) %")
TWO_FAIR = (TWO, "Beside mixup", "gap closed (published) %")
LARGE_FAIR_LONG = (LARGE, "Beside mixup28", "gap closed (published) %")
OF_LONG = (LARGE, "Against single_none_tau4_long")
AFTER_NONE = (TWO, "Against single_none, corrupted", "Δ cNLL")
AFTER_LONG = (LARGE, "Against single_none_tau4_long, corrupted", "Δ cNLL")
DISAGREEMENT = "single_gaussian_disagreement"
MIXTURES, LATENT = "single_mixup_tau4_long", "latent_be_mixup_tau4"
