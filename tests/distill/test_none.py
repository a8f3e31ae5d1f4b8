from __future__ import annotations

from contracts import toys
from recdistill.distill.none import NoDistillation
from recdistill.training.objective import Objective


def test_the_student_alone_has_only_its_own_loss() -> None:
    student, batch = toys.model(), toys.batch()
    terms = Objective(student, NoDistillation(), 0.0)(batch)
    assert list(terms) == ["base"]
    assert terms["base"].equal(student.loss(student.scorer(), batch))


def test_weight_decay_is_a_term_of_its_own() -> None:
    student, batch = toys.model(), toys.batch()
    terms = Objective(student, NoDistillation(), 0.25)(batch)
    assert list(terms) == ["base", "weight_decay"]
    assert terms["weight_decay"].equal(0.25 * student.penalty(student.scorer(), batch))


def test_it_takes_any_number_of_teachers_and_needs_nothing_of_them() -> None:
    assert NoDistillation.teachers is None
    assert NoDistillation.requires == frozenset()
