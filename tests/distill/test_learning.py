"""Each method teaches: a student that sees nothing but its terms comes to rank as the teacher does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.stats import kendalltau

from contracts import toys
from recdistill.config import TrainerConfig
from recdistill.dataset.catalog import Synthetic
from recdistill.dataset.filters import Filter
from recdistill.dataset.loading import load
from recdistill.dataset.popularity import popularity_groups
from recdistill.dataset.sampling import SeenItems
from recdistill.dataset.splits import Ratio
from recdistill.distill.base import Distiller
from recdistill.distill.cd import CD
from recdistill.distill.ce_kd import CEKD
from recdistill.distill.combined import Combined
from recdistill.distill.dcd import DCD
from recdistill.distill.ir_rrd import IRRRD
from recdistill.distill.none import NoDistillation
from recdistill.distill.rce_kd import RCEKD
from recdistill.distill.rd import RD
from recdistill.distill.rrd import RRD
from recdistill.distill.strata import Strata
from recdistill.distill.unkd import UnKD
from recdistill.models.mf import MF
from recdistill.ranking import top_k
from recdistill.runtime import generator
from recdistill.training.feed import Feed
from recdistill.training.trainer import fit
from recdistill.types import Interactions, Knowledge, Trajectory

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
CHANCE = 10 / 1000  # of an item of the teacher's ten among the student's ten; a little more among unseen items
DEPTH = 200

# Not here: CE-KD guided by the teacher. It never says that the teacher's items stand above the others (0.04 in this
# test), which is what RCE-KD is about.
METHODS: dict[str, Callable[[], Distiller]] = {
    "rd": lambda: RD(items=10, warm_up=2),
    "cd": lambda: CD(),
    "cd-teacher": lambda: CD(guide="teacher"),
    "cd-random": lambda: CD(guide="random"),
    "rrd": lambda: RRD(),
    "rrd-published": lambda: RRD(draw="sampled", rest="sampled"),
    "ir_rrd": lambda: IRRRD(),
    "ir_rrd-published": lambda: IRRRD(draw="sampled", rest="sampled"),
    "dcd": lambda: DCD(),
    "ce_kd": lambda: CEKD(),
    "rce_kd": lambda: RCEKD(),
    "strata-mixed": lambda: Strata(mix=0.5),
    "combined": lambda: Combined(parts={"list": RRD(), "strata": UnKD()}),
}
IN_GROUPS: dict[str, Callable[[], Distiller]] = {"unkd": lambda: UnKD(), "strata": lambda: Strata()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    folder = tmp_path_factory.mktemp("dataset")
    source = Synthetic(n_users=2000, n_items=1000, n_interactions=60000, filter=Filter(), split=Ratio())
    made = load(source, data=folder / "data", cache=folder / "cache", groups=2, say=lambda line: None)
    return made.training_view()


@pytest.fixture(scope="module")
def teacher(data: Interactions) -> MF:
    model = MF(dim=32, loss="softmax")
    model.prepare(data, generator(0, "teacher"))
    settings = TrainerConfig(epochs=15, eval_every=15, patience=15, weight_decay=0.01)
    fit(model, NoDistillation(), data, settings, seed=0, device=CPU, validate=lambda model: 0.0)
    return model


def taught(distiller: Distiller, data: Interactions, teacher: MF, epochs: int = 5) -> MF:
    """A student that was trained on the distiller's terms alone."""
    labels = toys.labels(teacher, DEPTH, distiller.group_lists, data=data)
    student = MF(dim=16)
    student.prepare(data, generator(0, "student"))
    distiller.prepare(Knowledge({"teacher": Trajectory("teacher", (labels,))}, {}), data, student, generator(0, "d"))
    feed = Feed(data, batch_size=1024, negatives=1, seed=0, device=CPU)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    for epoch in range(epochs):
        distiller.on_epoch_start(epoch, student, generator(0, "d", epoch + 1))
        for batch in feed.epoch(epoch):
            optimizer.zero_grad()
            sum(distiller(student.scorer(), batch).values()).backward()
            optimizer.step()
    return student.eval()


def shared(student: MF, teacher: MF, data: Interactions) -> float:
    """Mean share of the teacher's first ten unseen items among the student's."""
    seen, everybody = SeenItems(data), torch.arange(data.n_users)
    with torch.no_grad():
        lists = [top_k(model.scorer(), seen, everybody, data.n_items, 10).item for model in (student, teacher)]
    return float((lists[0].unsqueeze(2) == lists[1].unsqueeze(1)).any(2).double().mean())


def tau_in_groups(student: MF, teacher: MF, data: Interactions) -> float:
    """Mean Kendall tau of student and teacher over the unseen items of each of 4 groups, for 50 users."""
    popularity, found = data.popularity(), []
    group = torch.where(popularity > 0, popularity_groups(popularity, 4), -1)
    users = torch.arange(0, data.n_users, data.n_users // 50)
    with torch.no_grad():
        scores = [model.scorer().all_scores(users) for model in (student, teacher)]
    for row, user in enumerate(users.tolist()):
        unseen = torch.ones(data.n_items, dtype=torch.bool).index_fill(0, data.item[data.user == user], False)
        for g in range(4):
            inside = unseen & (group == g)
            found.append(kendalltau(scores[0][row, inside], scores[1][row, inside]).statistic)
    return sum(found) / len(found)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_taught_by_the_method_alone_shares_ten_times_chance_with_the_teacher(
    method: str, data: Interactions, teacher: MF, record_property: Callable[[str, object], None]
) -> None:
    student = MF(dim=16)
    student.prepare(data, generator(0, "student"))
    assert shared(student, teacher, data) < 3 * CHANCE
    found = shared(taught(METHODS[method](), data, teacher), teacher, data)
    record_property("overlap@10", found)
    assert found >= 10 * CHANCE


@pytest.mark.parametrize("method", IN_GROUPS)
def test_a_student_taught_inside_groups_orders_them_as_the_teacher_does(
    method: str, data: Interactions, teacher: MF, record_property: Callable[[str, object], None]
) -> None:
    found = tau_in_groups(taught(IN_GROUPS[method](), data, teacher, 15), teacher, data)
    record_property("Kendall tau", found)
    assert found > 0.3
