import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recdistill.report.compare import compare
from recdistill.report.comparison import Comparison, label
from recdistill.report.comparison_formats import csv_table, json_text, latex, markdown, print_comparison, table
from recdistill.report.runs import Unfinished, find_runs
from recdistill.report.significance import against
from toy_runs import write_run, write_users

METRICS = ["test/ndcg@20", "test/recall@20", "test/poplift@20"]
FAILED = [Unfinished(Path("outputs/50%_done"), "failed", "TrainingError: loss & nan")]


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Two weights of rrd, three seeds of one and two of the other, tested against scratch."""
    generator = np.random.default_rng(0)
    base = generator.normal(0.2, 0.1, (3, 50))
    for weight, shift in ((0.1, 0.3), (0.3, 0.001)):
        for seed in range(3 if weight == 0.1 else 2):
            student = base[seed] + generator.normal(shift, 0.01, 50)
            run = write_run(tmp_path / f"{weight}-{seed}", seed=seed, weight=weight, ndcg=float(student.mean()))
            own = {"student": student, "scratch": base[seed], "teacher": base[0] + 0.5, "mostpop": base[0] - 0.1}
            write_users(run, own)
    return against(compare(find_runs([tmp_path])[0], METRICS), ["scratch"])[0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_letters_go_on_after_z() -> None:
    assert [label(n) for n in (0, 25, 26, 27, 51, 52, 701, 702)] == ["a", "z", "aa", "ab", "az", "ba", "zz", "aaa"]


def test_a_narrow_terminal_shows_whole_cells_and_the_settings_below(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    tuned = [replace(row, trials=8, marks="*†") for row in comparison.rows]
    stream = Terminal()
    print_comparison(replace(comparison, rows=tuned), stream)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line for line in lines if re.match(r"d +rrd +3\*† ", line)]
    assert row.count("±") == 4
    assert "d rrd: mf 8, taught by mf 64, distill.weight=0.1, 8 trials" in lines
    (tested,) = [line for line in lines if re.match(r"d rrd +ndcg@20 ", line)]
    assert re.search(r"\+0\.(30|29)\d\d +\+0\.", tested)
    assert "e rrd" in stream.getvalue()


def test_a_pipe_gets_the_whole_width(comparison: Comparison) -> None:
    wide = replace(comparison, rows=[replace(row, settings="x" * 300) for row in comparison.rows])
    text = table([wide], FAILED)
    assert "x" * 300 in text
    assert "…" not in text
    assert "outputs/50%_done" in text


def test_markdown_has_the_best_in_bold_and_letters_of_worse_rows(comparison: Comparison) -> None:
    text = markdown([comparison], FAILED)
    (line,) = [line for line in text.splitlines() if line.startswith("| d | rrd")]
    assert re.search(r"\| \*\*0\.\d{4} ± 0\.\d{4}\*\*<sup>bce</sup> \|", line)
    assert "| 2\\* |" in text
    assert "Difference to b (scratch), paired over 50 users in common" in text
    assert "&lt;0.0001" in text


def test_a_lift_and_a_teacher_are_never_the_best(comparison: Comparison) -> None:
    lines = [line for line in markdown([comparison], []).splitlines() if line.startswith("| a | (teacher)")]
    assert len(lines) == 1
    assert "**" not in lines[0]
    lifts = [line.split(" | ")[-2] for line in markdown([comparison], []).splitlines() if line.startswith("| d | rrd")]
    assert lifts == ["0.2000 ± 0.0000"]


def test_csv_and_json_carry_all_numbers_of_the_tests(comparison: Comparison) -> None:
    one = comparison.tests.differences["test/ndcg@20"][3]
    (row,) = [row for row in json.loads(json_text([comparison], FAILED))["tables"][0]["rows"] if row["label"] == "d"]
    found = row["metrics"]["test/ndcg@20"]
    assert (found["difference"], found["low"], found["high"]) == (one.value, one.low, one.high)
    assert (found["p"], found["p_permutation"], found["dz"], found["n_users"]) == (one.p, one.p_permutation, one.dz, 50)
    assert (found["better_than"], row["baseline"], row["n"]) == (["b", "c", "e"], "(scratch)", 3)
    lines = list(csv.DictReader(io.StringIO(csv_table([comparison], FAILED))))
    (line,) = [line for line in lines if line["label"] == "d"]
    for part in ("difference", "low", "high", "p", "p_permutation", "p_raw", "p_permutation_raw", "dz", "n_users"):
        assert float(line[f"test/ndcg@20 {part}"]) == found[part]
    assert line["test/ndcg@20 better_than"] == "b c e"
    assert [line["marks"] for line in lines[:5]] == ["", "", "", "", "*"]
    (base,) = [line for line in lines if line["method"] == "(scratch)"]
    assert base["test/ndcg@20 p"] == ""


def test_without_tests_csv_has_no_columns_of_them(comparison: Comparison) -> None:
    header = csv_table([replace(comparison, tests=None)], []).splitlines()[0]
    assert "p_permutation" not in header


def parsed(text: str) -> list[list[list[str]]]:
    """The tabulars of a LaTeX text, rows of cells; asserts that environments and braces close and rows fill up."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    opened, tables = [], []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert text.count("$") % 2 == 0
    for alignment, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        assert [rule in body for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3
        rows = [re.split(r"(?<!\\) & ", line[:-3]) for line in body.splitlines() if line.endswith(r" \\")]
        assert {len(row) for row in rows} == {len(alignment)}
        tables.append(rows)
    bare = re.sub(r"\\begin\{tabular\}.*?\\end\{tabular\}", "", text, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[&%#_]|[^\x00-\x7f]", bare)
    return tables


def test_latex_parses_and_holds_bold_letters_and_tests(comparison: Comparison) -> None:
    text = latex([comparison], FAILED)
    rows, tests = parsed(text)
    assert text.startswith("% needs \\usepackage{booktabs}\n")
    assert rows[0] == ["", "method", "n", "ndcg@20", "recall@20", "poplift@20", "gap closed"]
    assert re.fullmatch(r"\\textbf\{0\.\d{4}\} \{\\scriptsize\$\\pm\$ 0\.\d{4}\}\$\^\{bce\}\$", rows[4][3])
    assert tests[0] == ["row", "metric", "difference", r"95 \% interval", "p", "p perm.", "dz"]
    assert [line[0] for line in tests[1:]] == ["a (teacher)", "c (mostpop)", "d rrd", "e rrd"]
    assert tests[1][4] == "$<$0.0001"


def test_names_of_others_are_text_in_latex(comparison: Comparison) -> None:
    nasty = [replace(row, method=r"my_m&th{od}% $x^2$ \~#") for row in comparison.rows]
    rows, _ = parsed(latex([replace(comparison, title="50% of R&D_{2}", rows=nasty)], []))
    assert rows[1][1] == r"my\_m\&th\{od\}\% \$x\textasciicircum{}2\$ \textbackslash{}\textasciitilde{}\#"
