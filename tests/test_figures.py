"""Figures of planted studies: all are made, say what they should, hold every point, and never crash for a bad fit."""

from dataclasses import replace
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from ecgscale.figures import STYLE, chapters, figures_of, mark_values, write_figures
from ecgscale.figures.claims import claim_figures, claim_numbers
from ecgscale.figures.style import between, distinct, exact, short, spread, with_interval
from ecgscale.findings import Conclusion, Finding, Verdict
from ecgscale.fitted import Method
from ecgscale.study import Study
from ecgscale.tables import Columns, law_study, pair_study

SIZES = (20_000, 60_000, 200_000, 600_000)
RECORDS = (300, 900, 2700, 8100)


def planted_rows(group="g0", sizes=SIZES, records=RECORDS, noise=0.01, gain=1.0):
    """Runs of E + A/N^α + B/D^β, and a second loss that is a straight line of the first."""
    rng = np.random.default_rng(sum(map(ord, group)))
    rows = []
    for n, d in product(sizes, records):
        loss = (0.2 + 9.0 * (gain * n) ** -0.4 + 4.0 * d**-0.45) * np.exp(noise * rng.normal())
        rows.append({"group": group, "N": n, "D": d, "loss": loss, "elsewhere": 0.3 + 1.4 * loss})
    return rows


def joint_study(tmp_path, rows, laws=("chinchilla",), by=("group",), **method) -> Study:
    path = tmp_path / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    method = Method(**{"bootstrap": 60} | method)
    return law_study(path, Columns("loss", "N", "D", by=by), laws, method)


def drawn(study):
    """Every figure by its name, in the style in which they are written."""
    with matplotlib.rc_context(STYLE):
        figures = dict(figures_of(study))
        for figure in figures.values():
            figure.draw_without_rendering()
        return figures


def words_of(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def shown_axes(figure):
    return [axis for axis in figure.axes if axis.get_visible() and axis.axison]


def holds_all(axis, x, y) -> bool:
    (x_low, x_high), (y_low, y_high) = axis.get_xlim(), axis.get_ylim()
    return bool(((x >= x_low) & (x <= x_high) & (y >= y_low) & (y <= y_high)).all())


@pytest.fixture(scope="module")
def two_groups(tmp_path_factory) -> Study:
    return joint_study(tmp_path_factory.mktemp("two"), planted_rows("first") + planted_rows("second", gain=3.0))


@pytest.fixture(scope="module")
def two_drawn(two_groups):
    return drawn(two_groups)


# --- what is drawn -------------------------------------------------------------------------------------------------


def test_a_table_of_two_groups_has_every_figure(two_drawn):
    kinds = ("scaling", "surface", "residuals", "corner", "frontier", "hold-out", "efficiency")
    assert list(two_drawn) == [f"{kind}-loss" for kind in kinds]


def test_every_run_lies_within_its_axes(two_groups, two_drawn):
    for i, law in enumerate(two_groups.laws):
        n, d, loss = (law.points[c].to_numpy() for c in ("n", "d", "loss"))
        against_n, against_d = two_drawn["scaling-loss"].axes[i], two_drawn["scaling-loss"].axes[2 + i]
        assert holds_all(against_n, n, loss)
        assert holds_all(against_d, d, loss)
        assert holds_all(two_drawn["surface-loss"].axes[i], n, d)
        for axis, flops in (
            (two_drawn["frontier-loss"].axes[2 * i], n),
            (two_drawn["frontier-loss"].axes[2 * i + 1], d),
        ):
            assert holds_all(axis, 6.0 * n * d, flops)


def test_lines_carry_the_names_of_their_levels_and_titles_the_exponents(two_groups, two_drawn):
    words = words_of(two_drawn["scaling-loss"])
    for name in ("20K", "600K", "300", "8.1K", "first", "second", "parameters N", "data D"):
        assert name in words
    alpha = two_groups.laws[0].fit.theta["alpha"]
    assert f"α = {alpha:.2f} [" in words


def test_bands_of_the_mean_lie_within_those_of_a_new_run(two_groups):
    fit = two_groups.laws[0].fit
    predicted = fit.predict(np.array(SIZES), 2700)
    assert (predicted.new_low <= predicted.low).all()
    assert (predicted.new_high >= predicted.high).all()


def test_corner_prints_the_correlation_of_floor_and_exponent(two_groups, two_drawn):
    fit = two_groups.laws[0].fit
    draws = {name: fit.draws[:, i] for i, name in enumerate(fit.theta)}
    r = np.corrcoef(draws["E"], draws["alpha"])[0, 1]
    assert f"r = {r:.2f}".replace("-", "−") in words_of(two_drawn["corner-loss"])


def test_frontier_title_has_the_exponents_and_their_intervals(two_groups, two_drawn):
    a = two_groups.laws[0].frontier.a
    assert f"a = {a.value:.2f} [{a.low:.2f}, {a.high:.2f}]" in words_of(two_drawn["frontier-loss"])


def test_efficiency_says_who_is_compared_and_by_how_much(two_groups, two_drawn):
    words = words_of(two_drawn["efficiency-loss"])
    assert "first vs second" in words
    multiplier = two_groups.comparisons[0].efficiency.equal_loss[0].middle.value
    assert short(multiplier, 2) in words


def test_arms_without_a_common_loss_say_so(tmp_path):
    better = [row | {"loss": row["loss"] / 10} for row in planted_rows("better")]
    figures = drawn(joint_study(tmp_path, better + planted_rows("worse")))
    assert "not reached in range" in words_of(figures["efficiency-loss"])


def test_hold_out_quotes_the_law_and_both_trivial_predictors(two_drawn):
    words = words_of(two_drawn["hold-out-loss"])
    for name in ("law", "best so far", "no floor", "first held out by N", "second held out by D"):
        assert name in words


def test_many_levels_get_a_few_lines_and_a_colour_bar(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row for n in np.geomspace(1e4, 1e6, 40) for row in planted_rows("all", (n,), (rng.uniform(300, 8000),))]
    figures = drawn(joint_study(tmp_path, rows, by=()))
    panels = shown_axes(figures["scaling-loss"])
    assert len(panels) == 4  # two panels, each with a bar
    assert all(len(axis.lines) <= 6 for axis in panels)


def test_several_forms_get_files_of_their_own(tmp_path):
    study = joint_study(tmp_path, planted_rows(), ("chinchilla", "multiplicative"), by=())
    names = set(drawn(study))
    assert {"scaling-loss-chinchilla", "scaling-loss-multiplicative"} <= names
    assert "scaling-loss" not in names


def test_eight_groups_with_long_names_go_on_a_second_sheet(tmp_path):
    groups = [f"a corpus $with$ a_name_nobody_can_put_over_a_panel number {i}" for i in range(8)]
    study = joint_study(tmp_path, [row for group in groups for row in planted_rows(group)], bootstrap=20)
    figures = drawn(study)
    assert {"scaling-loss", "scaling-loss-2", "corner-loss-2", "frontier-loss-2"} <= set(figures)
    panels = [a for name in ("scaling-loss", "scaling-loss-2") for a in figures[name].axes if a.get_visible()]
    assert len(panels) == 16


# --- conclusions -----------------------------------------------------------------------------------------------


def finding(value, low, high, verdict, *, null=1.0, subject="a against b", one_task=False) -> Finding:
    return Finding(subject, "elsewhere", one_task, "times", value, low, high, null, verdict, "planted")


CONCLUSION = Conclusion(
    "planted",
    "Does a need less than b?",
    "a needs less",
    "",
    Verdict.SUPPORTED,
    "",
    (
        finding(2.0, 1.5, 2.6, Verdict.SUPPORTED),
        finding(0.9, 1e-7, None, Verdict.UNDECIDED, subject="an open end"),
        finding(None, None, None, Verdict.UNDECIDED, subject="nothing"),
        finding(0.4, 0.3, 0.5, Verdict.CONTRADICTED, one_task=True, subject="one task"),
    ),
)


def test_conclusions_stand_beside_their_null_with_value_and_interval():
    (figure,) = claim_figures([CONCLUSION], one_task=False)
    figure.draw_without_rendering()
    words = words_of(figure)
    for part in ("Does a need less than b?", "2 [1.5, 2.6]", "0.9 [", "open]", "1 of 3 without a value", "supported"):
        assert part in words
    assert "one task" not in words
    (axis,) = shown_axes(figure)
    low, high = axis.get_xlim()
    assert low < 0.9 < 1.0 < 2.6 < high
    assert low > 1e-4  # an end that runs away becomes an arrow


def test_single_tasks_have_a_figure_of_their_own_and_numbers_hold_all():
    (figure,) = claim_figures([CONCLUSION], one_task=True)
    assert "one task" in words_of(figure)
    assert len(claim_numbers([CONCLUSION], one_task=False)) == 3
    assert claim_numbers([CONCLUSION], one_task=True)["value"].tolist() == [0.4]


def test_conclusion_without_any_value_is_said_in_words():
    nothing = replace(CONCLUSION, findings=CONCLUSION.findings[2:3])
    (figure,) = claim_figures([nothing], one_task=False)
    figure.draw_without_rendering()
    assert "1 undecided, without a value" in words_of(figure)


def test_numbers_of_every_figure_hold_what_is_drawn(two_groups):
    tables = {chapter.kind: chapter.numbers() for chapter in chapters(two_groups)}
    n_runs = sum(len(law.points) for law in two_groups.laws)
    for kind in ("scaling", "surface", "residuals"):
        assert len(tables[kind]) == n_runs
    assert len(tables["corner"]) == sum(len(law.fit.draws) for law in two_groups.laws)
    assert {"n", "n_low", "n_high", "extrapolating"} <= set(tables["frontier"].columns)
    assert {"law_error", "best_so_far_error"} <= set(tables["hold-out"].columns)
    efficiency = tables["efficiency"].set_index("ratio")["value"]
    assert efficiency["N, equal loss"] == two_groups.comparisons[0].efficiency.equal_loss[0].middle.value


# --- one variable, pairs -------------------------------------------------------------------------------------------


@pytest.fixture
def budgets(tmp_path):
    c = np.geomspace(1e17, 1e20, 9)
    noise = np.exp(0.01 * np.random.default_rng(1).normal(size=9))
    path = tmp_path / "budgets.csv"
    table = {"C": c, "L": (1.6 + 2e3 * c**-0.2) * noise, "n_opt": 0.1 * c**0.48 * noise}
    pd.DataFrame(table | {"accuracy": 1 / (1 + 3e3 * c**-0.2 * noise)}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("column", "laws"), [("L", ("power", "power_floor")), ("n_opt", ("power",)), ("accuracy", ("sigmoid",))]
)
def test_one_variable_laws_show_their_points_and_dash_what_lies_beyond(budgets, column, laws):
    study = law_study(budgets, Columns(column, x="C"), laws, Method(bootstrap=40))
    figure = drawn(study)[f"lines-{column}"]
    (axis,) = shown_axes(figure)
    points = study.laws[0].points
    assert holds_all(axis, points["x"].to_numpy(), points["loss"].to_numpy())
    dashed = [line for line in axis.lines if line.is_dashed()]
    assert len(dashed) == len(laws)
    assert all(line.get_xdata().min() > points["x"].max() for line in dashed)
    assert axis.get_xlabel() == "C"
    assert "α = " in words_of(figure)


def test_pairs_show_slope_and_kappa_and_the_diagonal(tmp_path):
    path = tmp_path / "runs.csv"
    pd.DataFrame(planted_rows("one") + planted_rows("two", gain=2.0)).to_csv(path, index=False)
    columns = Columns(n="N", d="D", by=("group",))
    study = pair_study(path, [("loss", "elsewhere"), ("elsewhere", "loss")], columns, Method(bootstrap=40))
    figures = drawn(study)
    assert list(figures) == ["loss-to-loss", "efficiency-loss-to-loss"]
    words = words_of(figures["loss-to-loss"])
    assert "one: κ = " in words
    assert "slope " in words
    points = study.pairs[0].points
    assert holds_all(figures["loss-to-loss"].axes[0], points["x"].to_numpy(), points["y"].to_numpy())
    assert "κ, a / b" in words_of(figures["efficiency-loss-to-loss"])


# --- what can't be drawn is said -----------------------------------------------------------------------------------


def test_refused_fits_keep_their_points_and_their_reason(tmp_path):
    rows = planted_rows("good") + planted_rows("thin", SIZES[:2], RECORDS[:1])
    study = joint_study(tmp_path, rows)
    assert study.laws[1].fit is None
    figures = drawn(study)
    for name, figure in figures.items():
        assert "no fit" in words_of(figure) or name in ("hold-out-loss", "efficiency-loss"), name


def test_a_study_of_refused_fits_only_is_still_drawn(tmp_path):
    study = joint_study(tmp_path, planted_rows("thin", SIZES[:2], RECORDS[:1]), by=())
    assert "scaling-loss" in drawn(study)
    rows = [row | {"loss": -1.0} for row in planted_rows("nothing")]
    assert "scaling-loss" in drawn(joint_study(tmp_path, rows, by=()))


def test_without_a_bootstrap_there_are_no_bands_and_no_corner(tmp_path):
    figures = drawn(joint_study(tmp_path, planted_rows("first") + planted_rows("second"), bootstrap=0))
    assert "corner-loss" not in figures
    assert all(not axis.collections[1:] for axis in figures["scaling-loss"].axes)  # the points alone


def test_what_the_points_do_not_hold_is_called_so(tmp_path):
    flat = [row | {"loss": 0.5 + 4.0 * row["D"] ** -0.45} for row in planted_rows("flat in N")]
    study = joint_study(tmp_path, flat, by=())
    assert study.laws[0].fit.flags
    words = words_of(drawn(study)["scaling-loss"])
    assert "α not held" in words


def test_same_study_gives_the_same_bytes(two_groups, tmp_path):
    first, second = (write_figures(two_groups, tmp_path / name) for name in ("one", "two"))
    assert [p.name for p in first] == [p.name for p in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


# --- small things --------------------------------------------------------------------------------------------------


def test_numbers_are_as_long_as_they_need_to_be():
    assert [short(v) for v in (20_123, 1.3e9, 0.25, 1e18)] == ["20.1K", "1.3B", "0.25", "1e18"]
    assert distinct([94.8e6, 108e6, 114e6]) == ["94.8M", "108M", "114M"]
    assert exact([2.25, 0.125, 1e9]) == ["2.25", "0.125", "1B"]
    assert with_interval(0.34, (0.31, 0.37)) == "0.34 [0.31, 0.37]"
    assert with_interval(0.34, (0.3399, 0.3401)) == "0.3400 [0.3399, 0.3401]"
    assert with_interval(0.34, None) == "0.34"
    assert short(999_900) == "1M"
    assert between(2.13, 1.31, 3.4) == "2.13 [1.31, 3.4]"
    assert between(2.13, 1.31, None) == "2.13 [1.31, open]"
    assert between(-0.0123, -0.02, -0.01) == "−0.0123 [−0.02, −0.01]"
    assert between(None, None, None) == "—"


def test_labels_are_pushed_apart_within_the_panel():
    moved = spread([0.5, 0.51, 0.52, 0.99, 1.4], gap=0.1)
    assert np.diff(moved).min() >= 0.1 - 1e-12
    assert moved[-1] <= 1.0


@pytest.mark.parametrize("values", [(5.0,), (1.0, 1.001), tuple(np.geomspace(1e3, 1e12, 50)), ()])
def test_any_values_can_be_marked(values):
    axis = matplotlib.figure.Figure().subplots()
    axis.set_xscale("log")
    mark_values(axis.xaxis, values)
    assert len(axis.get_xticks()) >= bool(values)
