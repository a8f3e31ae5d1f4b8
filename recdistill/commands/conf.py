"""Where the config tree lies, and what is in it; without importing hydra."""

from __future__ import annotations

from pathlib import Path

GROUPS = (
    "dataset",
    "dataset/filter",
    "dataset/split",
    "model",
    "teacher",
    "student",
    "distill",
    "trainer",
    "soft_labels",
    "evaluation",
    "experiment",
    "sweep",
    "debug",
)


def conf_folder() -> Path:
    """The config tree: inside the installed package, or at the top of a clone."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def members(group: str, folders: tuple[Path, ...]) -> dict[str, Path]:
    """The choices of a group by name; later folders win."""
    return {path.stem: path for folder in folders for path in sorted((folder / group).glob("*.yaml"))}


def first_comment(path: Path) -> str:
    """The comment that starts a YAML file and says what it is for."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if line.startswith("#") and not text.startswith("@package"):
            return text
        if not line.startswith("#"):
            break
    return ""
