"""Tests that the tables of pages have the numbers of the tables of results."""

from documents import ROOT
from result_sources import (
    CHOOSING,
    CONTROLS,
    DISAGREEMENT,
    FAIR,
    FAIR_BEST,
    LARGE,
    LATENT,
    MAIN,
    MIXTURES,
    OF_CONTROLS,
    OF_FOUR,
    OF_ONE,
    OF_TWO,
    PUBLISHED,
    RANKING,
    RESULTS,
    SCORES,
    SMALL,
    TWO,
    TWO_GAP,
)
from result_tables import agrees, tables

README_ROWS = {
    "one network": "DE-1",
    "four networks": "DE-4",
    "one, distilled plainly": "single_none",
    "one, conf_ods": "single_conf_ods",
    "one, disagreement after a random step": DISAGREEMENT,
    "one, distilled plainly at τ = 4": "single_none_tau4",
    "one, distilled plainly at τ = 4, twice the epochs": "single_none_tau4_long",
    "one, mixup at τ = 4, twice the epochs": MIXTURES,
    "one, averaged from a BatchEnsemble (settings of its own), mixup at τ = 4": LATENT,
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
            source = TWO.cell("Results", model, column)
            for quoted, cell in zip(
                row[column].split(" ± "), source.split(" ± "), strict=True
            ):
                assert agrees(quoted, cell.strip("*")), (model, column)
        gap, _, error = row["gap %"].partition(" ± ")
        assert agrees(gap, TWO.cell("Results", model, TWO_GAP[2])), model
        mean, _, own = TWO.cell("Results", model, "mean of gaps %").partition(" ± ")
        assert agrees(gap, mean.strip("*")) and (not error or agrees(error, own)), model


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
        "fair gap, own epochs %": ("Beside mixup", "gap closed (published) %"),
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
            if row[column] == "–" or (trained and column == "fair gap, own epochs %"):
                continue
            if column == "fair gap, own epochs %" and name.endswith("_long"):
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


def test_the_number_of_teachers():
    rows = table_of(CHOOSING, "student, `none")
    for row, name in zip(rows, ("single_none_tau4", "single_mixup_tau4"), strict=False):
        for column, prefix, (source, heading, own) in (
            ("one teacher", "one ", OF_ONE),
            ("two", "two ", OF_TWO),
            ("four", "", OF_FOUR),
        ):
            found = source.cell(heading, prefix + name, own)
            assert row[column] == found.replace("*", "")
    *_, pooled = rows
    for column, name, (source, heading, own) in (
        ("one teacher", "one DE-1", OF_ONE),
        ("two", "two DE-2", OF_TWO),
        ("four", "DE-4", OF_FOUR),
    ):
        assert pooled[column] == source.cell(heading, name, own)


def test_perturbations():
    rows = table_of(CHOOSING, "tdiv_sdiv")
    columns = ("Gap closed, τ = 1", "τ = 4", "BatchEnsemble, τ = 1")
    assert [row["Perturbation"] for row in rows] == [*PERTURBATIONS]
    for row in rows:
        models = PERTURBATIONS[row["Perturbation"]]
        for column, model in zip(columns, models, strict=True):
            assert (row[column] == "–") == (model is None), (row, column)
            assert model is None or agrees(row[column], gap(model)), (model, column)
