"""The reference check of `make check` finds faults planted in a small repository, and nothing else.

Here `@` stands for the folder of documents, and `*` for nothing, so that the check passes over this file itself.
"""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "check_references.py"
README = """# Demo

[columns](@/points.md#the-columns), [here](#demo), [elsewhere](https://x.org/y.md#z), `src/demo/points.py`
"""
PAGE = """# Points

## The `columns`

`tests/test_points.py` has `test_points_are_kept`; `test_share` is an option.

```
## Not a heading [x](nowhere.md)
```
"""
SOURCE = '''"""Points (@/points.md#the-columns), as test_points_are_kept shows."""

test_share = "test_value"
'''
TESTS = """def test_points_are_kept():
    pass
"""
SOUND = {"README.md": README, "@/points.md": PAGE, "src/demo/points.py": SOURCE, "tests/test_points.py": TESTS}


@pytest.fixture
def check():
    spec = importlib.util.spec_from_file_location("check_references", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def problems(check, tmp_path):
    def of(files: dict[str, str]) -> list[str]:
        for name, text in files.items():
            file = tmp_path / name.replace("@", "docs")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("@", "docs").replace("*", ""))
        return check.problems(tmp_path)

    return of


def test_a_sound_repository_has_no_problems(problems):
    assert problems(SOUND) == []


@pytest.mark.parametrize(
    ("file", "fault", "message"),
    [
        ("README.md", "[x](@/nowhere.md)", "nowhere.md: there is no such file"),
        ("README.md", "![x](@/nowhere.png)", "docs/nowhere.png: there is no such file"),
        ("CHANGELOG.md", "[x](@/points.md#rows)", "points.md has no such heading"),
        ("@/points.md", "[x](#not-a-heading-x)", "points.md has no such heading"),
        ("@/more/deep.md", "[x](points.md)", "points.md: there is no such file"),
        ("src/demo/points.py", "# @/points.md#rows", "points.md has no such heading"),
        ("examples/short.py", "# @/nowhere.md", "nowhere.md: there is no such file"),
        ("@/points.md", "`src/demo/lines.py`", "there is no src/demo/lines.py"),
        ("@/points.md", "see tests/parity/test_points.py", "there is no tests/parity/test_points.py"),
        ("@/points.md", "`test_points_are_lost`", "there is no test test_points_are_lost"),
        ("src/demo/points.py", "# shown by test_points_are_lost", "there is no test test_points_are_lost"),
        ("src/demo/points.py", "# sp*ec points 3.1", "a document that does not ship"),
        ("tests/test_points.py", "# Sp*ec points, section 2", "a document that does not ship"),
        ("tests/test_points.py", "ROOT = '../*shared'", "a path outside the repository"),
    ],
)
def test_a_planted_fault_is_found_and_located(problems, file, fault, message):
    before = SOUND.get(file, "")
    (problem,) = problems(SOUND | {file: f"{before}{fault}\n"})
    assert problem.startswith(f"{file.replace('@', 'docs')}:{before.count(chr(10)) + 1}: ")
    assert message in problem


def test_headings_get_the_anchors_that_github_makes(check):
    page = "# A b\n## `c_d` (e), f!\n## A b\n## Knobs [x](y.md)\n"
    assert check.anchors(page) == {"a-b", "c_d-e-f", "a-b-1", "knobs-x"}
