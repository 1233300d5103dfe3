"""Who may import whom, and what may stand where: the rules that prose would lose."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "benchmarks", "client", "deploy", "migrations", "shared", "worker")

# What each package of ours may import of the others.
MAY_IMPORT = {
    "api": {"api", "shared"},
    "client": {"client"},
    "migrations": {"migrations", "shared"},
    "shared": {"shared"},
    "worker": {"shared", "worker"},
}

# Where each library may be imported; a path ending in / means everything below it.
ONLY_IN = {
    "boto3": ("shared/s3.py",),
    "botocore": ("shared/s3.py", "shared/storage.py"),
    "obstore": ("shared/s3.py", "shared/storage.py", "deploy/doctor/store.py"),
    "celery": ("worker/app.py", "worker/run.py", "worker/tasks/", "worker/dispatcher.py"),
    "kombu": ("worker/app.py", "worker/broker.py", "worker/dispatcher.py"),
    "fastapi": ("api/",),
    "starlette": ("api/",),
    "torch": ("worker/engine/", "benchmarks/deepseek/"),
    "transformers": ("worker/engine/", "benchmarks/deepseek/"),
    "onnxruntime": ("worker/engine/",),
    "rapidocr": ("worker/engine/",),
    "faster_paddle": ("worker/engine/", "benchmarks/engine.py"),
    "pypdfium2": ("worker/pipeline/source.py", "worker/pipeline/zygote.py"),
}

PIPELINE_KNOWS_NOT = {"sqlalchemy", "boto3", "celery", "torch", "shared.db", "shared.storage"}

FORBIDDEN_CALLS = {"eval", "exec", "compile"}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", sources(), ids=place)
def test_a_module_imports_only_what_its_package_may(path: Path) -> None:
    package = place(path).partition("/")[0]
    ours = {name.partition(".")[0] for name in imports(path)} & set(PACKAGES)

    assert ours <= MAY_IMPORT.get(package, set(PACKAGES))


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_in_its_place(library: str) -> None:
    users = {
        place(path)
        for path in sources()
        if library in {name.partition(".")[0] for name in imports(path)}
    }

    strays = {
        user
        for user in users
        if not any(
            user == home or (home.endswith("/") and user.startswith(home))
            for home in ONLY_IN[library]
        )
    }
    assert strays == set()


def test_the_pipeline_is_pure() -> None:
    for path in sorted((ROOT / "worker/pipeline").rglob("*.py")):
        assert not imports(path) & PIPELINE_KNOWS_NOT, place(path)


def test_one_place_commits() -> None:
    committing = [
        place(path) for path in sources() if re.search(r"\.commit\(|\.begin\(\)", path.read_text())
    ]

    assert set(committing) <= {"shared/db.py", "migrations/env.py"}


def test_nothing_runs_text_or_unpickles() -> None:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_CALLS, place(path)
        assert not imports(path) & {"pickle", "marshal", "shelve", "yaml"}, place(path)


def test_no_module_is_a_drawer() -> None:
    names = {path.stem for path in sources()}

    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}


def test_packages_hold_nothing_in_their_init() -> None:
    for path in sources():
        if path.name == "__init__.py":
            assert path.read_text() == "", place(path)
