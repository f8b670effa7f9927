"""Tests that the numbers that pages quote are those of the tables of results."""

import json
import re

import pytest
from documents import ROOT
from result_tables import Source, agrees, prose, results_in, tables

SMALL = Source(ROOT / "docs/results/cifar10-16x16.md")
CONTROLS = Source(ROOT / "docs/results/controls-16x16/summary.md")
LARGE = Source(ROOT / "docs/results/cifar10-32x32/summary.md")
TWO = Source(ROOT / "docs/results/cifar10-32x32-two-seeds/summary.md")
RESULTS, CHOOSING = ROOT / "RESULTS.md", ROOT / "docs/choosing.md"
README = ROOT / "README.md"
SCORES, RANKING = "side by side/Scores", "side by side/Ranking"
MAIN = "two CPU cores/Results"

README_ROWS = {
    "one network": "DE-1",
    "four networks": "DE-4",
    "one, distilled plainly": "single_none",
    "one, conf_ods": "single_conf_ods",
    "one, disagreement after a random step": "single_gaussian_disagreement",
    "one, mixup": "single_mixup",
    "one, distilled plainly at τ = 4": "single_none_tau4",
    "one, mixup at τ = 4": "single_mixup_tau4",
    "one, averaged from a BatchEnsemble, mixup at τ = 4": "latent_be_mixup_tau4",
}
# Row of a table of perturbations -> of `single` at τ = 1 and 4, and of BatchEnsembles.
PERTURBATIONS = {
    "none": ("single_none", "single_none_tau4", "be_none"),
    "gaussian": ("single_gaussian", None, "be_gaussian"),
    "mixup": ("single_mixup", "single_mixup_tau4", "be_mixup"),
    "ods": ("single_ods", None, "be_ods"),
    "conf_ods": ("single_conf_ods", "single_conf_ods_tau4", "be_conf_ods"),
    "disagreement`, `projection` of 2 members": (
        *("single_disagreement", "single_disagreement_tau4", "be_disagreement"),
    ),
    "disagreement`, `variance` of all 4": ("single_variance", None, None),
    "gaussian+disagreement`, `projection` of 2 members": (
        "single_gaussian_disagreement",
        "single_gaussian_disagreement_tau4",
        "be_gaussian_disagreement",
    ),
    "gaussian+disagreement`, `variance` of all 4": (
        *("single_gaussian_variance", None, None),
    ),
    "mixup+disagreement": (
        "single_mixup_disagreement",
        "single_mixup_disagreement_tau4",
        "be_mixup_disagreement",
    ),
    "tdiv_sdiv": ("single_tdiv_sdiv", None, "be_tdiv_sdiv"),
}
KINDS = {
    "single`, τ = 1": "single_{}",
    "single`, τ = 4": "single_{}_tau4",
    "latent_batch_ensemble`, τ = 4": "latent_be_{}_tau4",
    "hydra`, τ = 4": "hydra_{}_tau4",
    "batch_ensemble`, τ = 1": "be_{}",
    "batch_ensemble`, τ = 4": "be_{}_tau4",
    "dirichlet`, `mle": "dirichlet_mle_{}",
    "dirichlet`, `proxy": "dirichlet_proxy_{}",
    "functional`, 4 draws": "functional_{}",
}


def first_cell(column, model, *headings):
    """Returns the cell of the first of these tables that has the model."""
    for heading in headings:
        try:
            return SMALL.cell(heading, model, column)
        except KeyError:
            continue
    raise KeyError((model, column, headings))


def gap(model):
    return first_cell("gap closed %", model, RANKING, MAIN)


def score(model, column):
    return first_cell(column, model, SCORES, MAIN)


def table_of(page, first):
    """Returns the table of a page that has this row."""
    found = [
        table
        for of_heading in tables(page.read_text("utf-8")).values()
        for table in of_heading
        if first in [next(iter(row.values())) for row in table]
    ]
    (table,) = found
    return table


def test_the_readme():
    rows = table_of(ROOT / "README.md", "one, conf_ods")
    assert [row[""] for row in rows] == [*README_ROWS]
    for row in rows:
        model = README_ROWS[row[""]]
        for column in ("acc %", "NLL", "cNLL"):
            source = score(model, column)
            for quoted, cell in zip(
                row[column].split(" ± "), source.split(" ± "), strict=True
            ):
                assert agrees(quoted, cell.strip("*")), (model, column)
        assert agrees(row["gap %"], gap(model)), model


def test_the_main_table_of_results():
    for row in table_of(RESULTS, "single_mixup_disagreement"):
        model = row["model"]
        for column in ("acc %", "NLL", "cNLL", "ECE %"):
            assert agrees(row[column], score(model, column)), (model, column)
        assert agrees(row["gap closed %"], gap(model)), model
        passes = 4 if model == "DE-4" else 1
        assert row["passes"] == str(passes)


def test_the_controls():
    """Compares the table with that of the summary."""
    columns = {
        "acc %": (*OF_CONTROLS, "acc %"),
        "cNLL": (*OF_CONTROLS, "cNLL"),
        "gap closed % (published)": PUBLISHED,
        "beside mixup-trained, %": FAIR,
        "the same, best pool": FAIR_BEST,
        "DEE beside mixup-trained": (CONTROLS, "Beside mixup", "DEE"),
        "DEE of 16 plain": (CONTROLS, "Beside plain16", "DEE"),
    }
    rows = table_of(RESULTS, "packed_mixup_tau4")
    assert len(rows) == 12
    for row in rows:
        model, _, trained = row["model"].partition(" trained with ")
        for column, (source, heading, name) in columns.items():
            if trained:
                heading, model = "Beside mixup", f"mixup {model.split()[-1]}"
            if row[column] == "–" or (trained and column.endswith(("%", "pool"))):
                continue
            source = source.cell(heading, model, name)
            assert agrees(row[column], source), (model, column)
            assert row[column].startswith("≥") == source.startswith("≥")


def test_the_table_at_32x32():
    columns = {
        "acc %": ("Results", "acc %"),
        "NLL": ("Results", "NLL"),
        "cNLL": ("Results", "cNLL"),
        "ECE %": ("Results", "ECE %"),
        "gap closed % (published)": ("Results", "gap closed (published) %"),
        "gap, best pool %": ("Results", "gap closed (best pool) %"),
        "fair gap %": ("Beside mixup", "gap closed (published) %"),
        "DEE of 16 plain": ("Beside plain16", "DEE"),
        "DEE, best pool": ("Beside plain16", "DEE (best pool)"),
    }
    rows = table_of(RESULTS, "DE-16")
    assert len(rows) > 8
    for row in rows:
        name, _, trained = row["model"].partition(" trained with ")
        reference = trained.replace(", 28 epochs", "28")
        reference = "plain16" if name == "DE-16" else reference
        for column, (heading, own) in columns.items():
            if row[column] == "–" or (trained and column == "fair gap %"):
                continue
            if column == "fair gap %" and name.endswith("_long"):
                heading = "Beside mixup28"
            where = (f"Beside {reference}", f"{reference} {name}", own)
            source = LARGE.cell(*(where if reference else (heading, name, own)))
            assert agrees(row[column], source), (name, column)
            assert row[column].startswith("≥") == source.startswith("≥")


def test_kinds_of_student():
    rows = table_of(ROOT / "docs/results/comparison.md", "hydra`, τ = 4")
    assert [next(iter(row.values())) for row in rows] == [*KINDS]
    for row in rows:
        name = KINDS[next(iter(row.values()))]
        for column, perturbation in (
            ("On the inputs as they are", "none"),
            ("On mixtures", "mixup"),
        ):
            assert agrees(row[column], gap(name.format(perturbation))), (name, column)


def test_other_networks():
    """Compares the cNLLs of other teachers and of their student."""
    for row in table_of(CHOOSING, "student single_mixup_tau4"):
        *_, model = row["networks"].split()
        for name, quoted in row.items():
            if name == "deep":
                assert agrees(quoted, CONTROLS.cell("Results", model, "cNLL"))
            elif name != "networks" and quoted != "–":
                source = CONTROLS.cell(f"Beside {name}", f"{name} {model}", "cNLL")
                assert agrees(quoted, source), (name, model)


def test_perturbations():
    rows = table_of(CHOOSING, "tdiv_sdiv")
    columns = ("Gap closed, τ = 1", "τ = 4", "BatchEnsemble, τ = 1")
    assert [row["Perturbation"] for row in rows] == [*PERTURBATIONS]
    for row in rows:
        models = PERTURBATIONS[row["Perturbation"]]
        for column, model in zip(columns, models, strict=True):
            assert (row[column] == "–") == (model is None), (row, column)
            assert model is None or agrees(row[column], gap(model)), (model, column)


DIFFER, ECE = ("the teachers differ", "disagreement %"), (MAIN, "ECE %")
CNLL, NLL, GAP = (SCORES, "cNLL"), (SCORES, "NLL"), (RANKING, "gap closed %")
OF_CONTROLS = (CONTROLS, "Results")
PUBLISHED = (*OF_CONTROLS, "gap closed (published) %")
FAIR = (CONTROLS, "Beside mixup", "gap closed (published) %")
OF_SIXTEEN = (CONTROLS, "Beside plain16", "DEE")
OF_SIXTEEN_BEST = (CONTROLS, "Beside plain16", "DEE (best pool)")
FAIR_BEST = (CONTROLS, "Beside mixup", "gap closed (best pool) %")
LARGE_GAP = (LARGE, "Results", "gap closed (published) %")
LARGE_DIFFER = (LARGE, "Diversity of the teachers", "disagreement %")
LARGE_WRONG = (LARGE, "Diversity of the teachers", "mean member error %")
LARGE_BEST = (LARGE, "Results", "gap closed (best pool) %")
LARGE_FAIR = (LARGE, "Beside mixup", "gap closed (published) %")
TWO_GAP = (TWO, "Results", "gap closed (published) %")
TWO_FAIR = (TWO, "Beside mixup", "gap closed (published) %")
LARGE_FAIR_LONG = (LARGE, "Beside mixup28", "gap closed (published) %")
OF_LONG = (LARGE, "Against single_none_tau4_long")
AFTER_NONE = (LARGE, "Against single_none, corrupted", "Δ cNLL")
AFTER_LONG = (LARGE, "Against single_none_tau4_long, corrupted", "Δ cNLL")
DISAGREEMENT = "single_gaussian_disagreement"
MIXTURES, LATENT = "single_mixup_tau4_long", "latent_be_mixup_tau4"
# Words of a page with a number in braces; its row, and its table and column.
QUOTES = {
    README: [
        ("two close {98} and", "single_mixup_tau4", FAIR),
        ("{111} %. At 32x32", "latent_be_mixup_tau4", FAIR),
        ("τ = 4 closes {96} %", "single_none_tau4", TWO_GAP),
        ("the epochs {99} %,", "single_none_tau4_long", TWO_GAP),
        ("with mixup {111} %", MIXTURES, TWO_GAP),
        ("last kind {110} %", LATENT, TWO_GAP),
        ("mixup closes {82} %", MIXTURES, LARGE_FAIR_LONG),
        ("τ = 4: {1.222}; the", "latent_be_mixup_tau4", CNLL),
        ("teachers have {1.289}, at", "DE-4", CNLL),
        ("best {1.237} in", "DE-4", (*OF_CONTROLS, "cNLL (best pool)")),
        ("with τ = 4: {1.239}.", "single_mixup_tau4", CNLL),
        ("mixtures: NLL {1.293},", "single_mixup_disagreement", NLL),
        ("cNLL {1.289};", "single_none_tau4", CNLL),
        ("NLL is {1.691}.", "single_none_tau4", NLL),
        ("method: {75} % of", "single_conf_ods", GAP),
    ],
    RESULTS: [
        ("differ on {0.2} % of", "training inputs", LARGE_DIFFER),
        ("and on {22} % of the test", "test inputs", LARGE_DIFFER),
        ("on {26} % (conf_ods)", "conf_ods, 4/255 (be_conf_ods)", LARGE_DIFFER),
        (
            "and {34} % (disagreement). -",
            f"gaussian+disagreement, 4/255 ({DISAGREEMENT})",
            LARGE_DIFFER,
        ),
        ("closes {19} % of the gap, conf_ods ", "single_none", LARGE_GAP),
        ("{55} % and dis", "single_conf_ods", LARGE_GAP),
        ("random step {56} %", DISAGREEMENT, LARGE_GAP),
        ("does more**: {91} %.", "single_none_tau4", LARGE_GAP),
        ("mixtures close {114} % of", MIXTURES, LARGE_GAP),
        ("disagreement {102} % and", f"{DISAGREEMENT}_tau4_long", LARGE_GAP),
        ("plain distillation {94} %", "single_none_tau4_long", LARGE_GAP),
        ("28 epochs {114} % (", MIXTURES, LARGE_GAP),
        ("in 14 {107} %", LATENT, LARGE_GAP),
        ("{92} % of the best pool", MIXTURES, LARGE_BEST),
        ("({87} %). Fair", LATENT, LARGE_BEST),
        ("gap: LatentBE {115} %", LATENT, LARGE_FAIR),
        ("plain four {105} %", "DE-4", LARGE_FAIR),
        ("it has {75} %", LATENT, LARGE_FAIR_LONG),
        ("28 epochs {82} %. Of", MIXTURES, LARGE_FAIR_LONG),
        ("match {6.0} (", MIXTURES, (LARGE, "Beside plain16", "DEE")),
        ("{3.6} pooled at", MIXTURES, (LARGE, "Beside plain16", "DEE (best pool)")),
        ("(cNLL {-0.023} ", MIXTURES, (*OF_LONG, "Δ cNLL")),
        ("({-0.009} ", f"{DISAGREEMENT}_tau4_long", (*OF_LONG, "Δ cNLL")),
        ("closed is {23} % (none", "single_none", TWO_GAP),
        ("{96} % (τ", "single_none_tau4", TWO_GAP),
        ("{99} % (`long`)", "single_none_tau4_long", TWO_GAP),
        ("{110} % (LatentBE", LATENT, TWO_GAP),
        ("fair {122} %", LATENT, TWO_FAIR),
        ("and {111} % (mix", MIXTURES, TWO_GAP),
        ("(cNLL {-0.082} ", "single_none_tau4", AFTER_NONE),
        ("({+0.039} ", MIXTURES, AFTER_LONG),
        ("({+0.015} ", f"{DISAGREEMENT}_tau4_long", AFTER_LONG),
        ("images, on {49} % of", "test inputs", DIFFER),
        ("by 16/255 on {41} %", "conf_ods, 16/255 (single_conf_ods)", DIFFER),
        ("{53} % (disagreement)", "disagreement, 16/255 (be_disagreement)", DIFFER),
        ("by 1/255 on {4} %", "conf_ods, 1/255 (single_conf_ods_paper)", DIFFER),
        ("plain distillation closes {19} % of", "single_none", GAP),
        ("Gaussian noise {64} %", "single_gaussian", GAP),
        ("conf_ods {75} %", "single_conf_ods", GAP),
        ("disagreement {84} %", "single_disagreement", GAP),
        ("and from a random start {91} %", "single_gaussian_disagreement", GAP),
        ("at τ = 4 closes {100} %", "single_none_tau4", GAP),
        ("an ECE of {1.3} %", "single_disagreement", ECE),
        ("against {23.6} %", "single_none_tau4", ECE),
        ("{101} % at τ = 1", "single_mixup", GAP),
        ("{132} % at τ = 4", "single_mixup_tau4", GAP),
        ("({116} % at τ = 4)", "single_mixup_disagreement_tau4", GAP),
        ("closes {143} %", "latent_be_mixup_tau4", GAP),
        ("(cNLL {1.222})", "latent_be_mixup_tau4", CNLL),
        ("LatentBE closes {111} %", "latent_be_mixup_tau4", FAIR),
        ("(best pool {107} %)", "latent_be_mixup_tau4", FAIR_BEST),
        ("not {140} %; a", "latent_be_mixup_tau4", PUBLISHED),
        ("plain student {98} %", "single_mixup_tau4", FAIR),
        ("({94} %)", "single_mixup_tau4", FAIR_BEST),
        ("not {126} %, and", "single_mixup_tau4", PUBLISHED),
        ("`long` {101.5} % (", MIXTURES, FAIR),
        ("{97.5} %). -", MIXTURES, FAIR_BEST),
        ("random step closes {114} %", f"{DISAGREEMENT}_tau4_long", PUBLISHED),
        ("distillation {102} % (cNLL", "single_none_tau4_long", PUBLISHED),
        ("(DE-4: cNLL {1.2371},", "DE-4", (*OF_CONTROLS, "cNLL (best pool)")),
        ("not {1.2886}), ", "DE-4", (*OF_CONTROLS, "cNLL")),
        ("LatentBE is worth {9.5} of", "latent_be_mixup_tau4", OF_SIXTEEN),
        ("plain student {6.8};", "single_mixup_tau4", OF_SIXTEEN),
        ("{5.0} and", "latent_be_mixup_tau4", OF_SIXTEEN_BEST),
        ("{3.8}. These", "single_mixup_tau4", OF_SIXTEEN_BEST),
    ],
    CHOOSING: [
        ("at τ = 4 closed {96} %, and", "single_none_tau4", TWO_GAP),
        ("{99} % in twice", "single_none_tau4_long", TWO_GAP),
        ("as many closed {111} %", MIXTURES, TWO_GAP),
        ("in as many {110} %", LATENT, TWO_GAP),
        ("as many closed {82} %", MIXTURES, LARGE_FAIR_LONG),
        ("LatentBE {75} %. In", LATENT, LARGE_FAIR_LONG),
        ("step closed {102} %", f"{DISAGREEMENT}_tau4_long", LARGE_GAP),
        ("distillation closed {19} %", "single_none", LARGE_GAP),
        ("conf_ods {55} %", "single_conf_ods", LARGE_GAP),
        ("and disagreement {56} %", DISAGREEMENT, LARGE_GAP),
        ("runs, {114} % where", f"{DISAGREEMENT}_tau4_long", PUBLISHED),
        ("closed {102} %).", "single_none_tau4_long", PUBLISHED),
        ("wrong on {46} % of", "conf_ods, 16/255 (be_conf_ods)", LARGE_WRONG),
        ("4/255 on {24} %", "conf_ods, 4/255 (be_conf_ods)", LARGE_WRONG),
        ("test images ({22} %)", "test inputs", LARGE_WRONG),
        ("closed {132} % of the gap, below", "single_mixup_tau4", GAP),
        ("({1.239} against", "single_mixup_tau4", CNLL),
        ("{1.289})", "DE-4", CNLL),
        ("closed {143} %", "latent_be_mixup_tau4", GAP),
        ("({1.222})", "latent_be_mixup_tau4", CNLL),
        ("the two closed {98} %", "single_mixup_tau4", FAIR),
        ("and {111} %.", "latent_be_mixup_tau4", FAIR),
        ("closed {100} % without", "single_none_tau4", GAP),
        ("a little ({106} %)", "single_gaussian_disagreement_tau4", GAP),
        ("an NLL of {1.31}", "single_disagreement", NLL),
        ("an ECE of {1.3} %", "single_disagreement", ECE),
        ("τ = 4 had {1.69}", "single_none_tau4", NLL),
        ("and {23.6} % before", "single_none_tau4", ECE),
        ("closed {91} % of the gap", "single_gaussian_disagreement", GAP),
        ("instead of {84} %", "single_disagreement", GAP),
        ("one network, {1.293}.", "single_mixup_disagreement", NLL),
        ("the lowest, {0.580},", MIXTURES, (LARGE, "Results", "NLL")),
        ("It closed {75} % here", "single_conf_ods", GAP),
        ("1/255 closed {31} %", "single_conf_ods_paper", (MAIN, "gap closed %")),
        ("with 16/255 {75} %", "single_conf_ods", GAP),
        ("BatchEnsembles closed {79} %", "be_none", GAP),
        ("and {75} % with no teacher", "be_labels", (MAIN, "gap closed %")),
        ("they closed {30}", "be_tdiv_sdiv", GAP),
        ("to {79} %", "be_mixup_disagreement", GAP),
        ("brought them to {105} %", "be_mixup", GAP),
        ("an ECE of {1} %", "be_mixup", (SCORES, "ECE %")),
    ],
}
# Intervals over images at 32x32: kind of the comparison, baseline, student.
INTERVALS = {
    "[-0.032, -0.013]": ("comparisons", "single_none_tau4_long", MIXTURES),
    "[-0.018, +0.000]": (
        "comparisons",
        "single_none_tau4_long",
        f"{DISAGREEMENT}_tau4_long",
    ),
    "[-0.126, -0.038]": ("corrupted_comparisons", "single_none", "single_none_tau4"),
    "[+0.007, +0.073]": ("corrupted_comparisons", "single_none_tau4_long", MIXTURES),
    "[-0.019, +0.049]": (
        "corrupted_comparisons",
        "single_none_tau4_long",
        f"{DISAGREEMENT}_tau4_long",
    ),
}
# Differences in cNLL from single_none_tau4_long over seeds: folder, student. Mean, its
# standard error, p and, where they are given, the ends of the interval over images.
DIFFERENCES = {
    "-0.0190 ± 0.0041, p = 0.04; [-0.027, -0.011]": (
        *("controls-16x16", f"{DISAGREEMENT}_tau4_long"),
    ),
    "-0.012 ± 0.003 (p = 0.17)": ("cifar10-32x32-two-seeds", LATENT),
    "-0.014 ± 0.009 (p = 0.37)": ("cifar10-32x32-two-seeds", MIXTURES),
}
# KL of three students at 32x32, in two lengths of training.
DISTANCES = (
    "plain 0.021 → 0.011, 0.045 → 0.043; mixtures 0.040 → 0.029, 0.036 → 0.031; "
    "disagreement 0.045 → 0.034, 0.037 → 0.033."
)
# Further numbers in % or of three decimals: those of no single cell of the tables.
OTHERS = {
    README: [],
    RESULTS: [
        *INTERVALS,
        *DIFFERENCES,
        DISTANCES,
        "(0.009 ± 0.002 in cNLL",  # of the paired comparison
    ],
    CHOOSING: ["no more than 65 % of the training", "that closes 100 % of it can"],
}


def without_braces(words):
    return words.replace("{", "").replace("}", "")


def test_the_quoted_intervals():
    """Compares the intervals of RESULTS.md with the JSON of the summary."""
    folder = ROOT / "docs/results/cifar10-32x32"
    summary = json.loads((folder / "summary.json").read_text())
    for quoted, (kind, baseline, model) in INTERVALS.items():
        (row,) = (
            row
            for row in summary[kind]
            if (row["baseline"], row["model"]) == (baseline, model)
        )
        low, high = row["cnll"]["interval"]
        assert quoted == f"[{low:+.3f}, {high:+.3f}]", model


@pytest.mark.parametrize("quoted", DIFFERENCES)
def test_a_quoted_difference(quoted):
    """Compares a difference over seeds with the JSON of the summary."""
    folder, model = DIFFERENCES[quoted]
    summary = json.loads((ROOT / "docs/results" / folder / "summary.json").read_text())
    (found,) = (
        row["cnll"]
        for row in summary["comparisons"]
        if (row["baseline"], row["model"]) == ("single_none_tau4_long", model)
    )
    numbers = re.findall(r"-?\d\.\d+", quoted)
    expected = [found[key] for key in ("mean", "se", "p")] + found["interval"]
    assert len(numbers) in (3, 5)
    for number, value in zip(numbers, expected, strict=False):
        assert number == f"{value:.{len(number.partition('.')[2])}f}", model


def test_the_distances_from_the_teachers():
    heading = "the same at the temperature of distillation"
    cells = [
        LARGE.cell(heading, f"single_{name}_tau4{length}", inputs)
        for name, own in (
            ("none", "training inputs"),
            ("mixup", "perturbed"),
            ("gaussian_disagreement", "perturbed"),
        )
        for inputs in (own, "test inputs")
        for length in ("", "_long")
    ]
    quoted = re.findall(r"0\.\d+", DISTANCES)
    assert len(quoted) == len(cells) == 12
    assert all(agrees(*pair) for pair in zip(quoted, cells, strict=True))


def quotes():
    for page, of_page in QUOTES.items():
        for words, row, where in of_page:
            yield pytest.param(page, words, row, where, id=f"{page.stem}-{words}")


@pytest.mark.parametrize(("page", "words", "row", "where"), list(quotes()))
def test_a_quoted_number(page, words, row, where):
    assert without_braces(words) in prose(page)
    quoted = words.partition("{")[2].partition("}")[0]
    source, heading, column = where if len(where) == 3 else (SMALL, *where)
    assert agrees(quoted, source.cell(heading, row, column))


@pytest.mark.parametrize("page", QUOTES, ids=lambda page: page.stem)
def test_no_number_of_the_prose_is_without_a_source(page):
    text = prose(page)
    quoted = [without_braces(words) for words, *_ in QUOTES[page]]
    for words in [*quoted, *OTHERS[page]]:
        assert words in text, words
        text = text.replace(words, " ")
    assert results_in(text) == []
