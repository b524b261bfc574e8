"""Fails if a link, citation, path or test name in documents, source or tests leads nowhere.

    python tools/check_references.py [ROOT]

Prints one line `file:line: problem` for each problem and exits with 1 if there is any. Checked are

- markdown links to files and headings, in the documents (README, CONTRIBUTING, CHANGELOG, docs);
- citations such as docs/methods/mvp.md#columns, in the Python files of `CODE`;
- paths such as src/dualdistill/cli.py, in the documents;
- names of tests, in the documents and in comments and docstrings of src;
- words that `FORBIDDEN` lists, in src and tests.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md")
CODE = ("src", "tests", "benchmarks", "studies", "examples")
REPLACED = (
    "ResponseJudge|TaughtMaps|Rehearsal|Unfamiliar|Unowned|KeyFate|Exhibit|sight_of|owner_of_cells|depth_owner|inherit_head"
    "|taught_share|distiller_first|losses_through|sees_owners|sees_instances|learns_from_labels"
)
FORBIDDEN = {
    r"\.\./shared": "a path outside the repository",
    r"\b[Ss]pec [a-z_]+,? (?:sections? )?(?:[a-h]\.)?[0-9]|\b[Ss]pec [a-h]\.[0-9]": "a document that does not ship",
    '"""Of ': "a docstring that is no sentence or noun phrase",
    rf"\b(?:{REPLACED})\b": "a name that was replaced",
}

LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*$")
CITATION = re.compile(r"(?<![\w/.])docs/[\w./-]+\.md(?:#[\w-]+)?")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join((*CODE, 'docs', 'tools'))})/[\w./*-]*[\w/*]")
TEST = re.compile(r"(?<![\w.])test_[a-z0-9_]+(?![\w*])")


def problems(root: Path) -> list[str]:
    """All problems of the repository at `root`, as lines `file:line: problem`."""
    pages = sorted({path for pattern in PAGES for path in root.glob(pattern)})
    sources = {folder: sorted((root / folder).rglob("*.py")) for folder in CODE}
    tests = {path.stem for path in sources["tests"]}
    for path in sources["tests"]:
        tests |= {node.name for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef)}
    known = tests.union(*map(_identifiers, sources["src"]))
    found = [problem for page in pages for problem in _of_page(root, page, known)]
    for folder, paths in sources.items():
        for path in paths:
            found += _of_source(root, path, known if folder == "src" else None, folder in ("src", "tests"))
    return found


def _of_page(root: Path, page: Path, tests: set[str]) -> Iterator[str]:
    """Problems of one markdown file."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        at = f"{page.relative_to(root)}:{number}"
        fenced ^= line.lstrip().startswith("```")
        if not fenced:
            for link in LINK.findall(re.sub(r"`[^`]*`", "", line)):
                if not re.match(r"[a-z][a-z0-9+.-]*:", link):
                    yield from _dangling(at, "link to", unquote(link), page.parent, page)
        for path in PATH.findall(re.sub(r"\]\([^)]*\)|https?://\S+", "", line)):
            if not any(root.glob(path.rstrip("/"))):
                yield f"{at}: there is no {path}"
        yield from (f"{at}: there is no test {name}" for name in TEST.findall(line) if name not in tests)


def _of_source(root: Path, path: Path, tests: set[str] | None, forbidden: bool) -> Iterator[str]:
    """Problems of one Python file; names of tests are checked if `tests` is given."""
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        at = f"{path.relative_to(root)}:{number}"
        for citation in CITATION.findall(line):
            yield from _dangling(at, "citation of", citation, root, path)
        for pattern, what in FORBIDDEN.items() if forbidden else ():
            yield from (f"{at}: {match[0]!r} is {what}" for match in re.finditer(pattern, line))
    for token in _tokens(path) if tests is not None else ():
        if token.type == tokenize.COMMENT or token.string.startswith('"""'):
            for name in {*TEST.findall(token.string)} - (tests or set()):
                yield f"{path.relative_to(root)}:{token.start[0]}: there is no test {name}"


def _dangling(at: str, what: str, target: str, folder: Path, page: Path) -> Iterator[str]:
    """The problem of a target, relative to `folder`, that leads nowhere."""
    name, _, anchor = target.partition("#")
    file = folder / name if name else page
    if not file.exists():
        yield f"{at}: {what} {target}: there is no such file"
    elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
        yield f"{at}: {what} {target}: {file.name} has no such heading"


def anchors(markdown: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    found: list[str] = []
    seen: Counter[str] = Counter()
    fenced = False
    for line in markdown.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else HEADING.match(line)
        if heading:
            text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            found.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return set(found)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _identifiers(path: Path) -> set[str]:
    """Names in the code of a file, not in its strings and comments: options may begin with "test_", too."""
    return {token.string for token in _tokens(path) if token.type == tokenize.NAME}


def _tokens(path: Path) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)


if __name__ == "__main__":
    found = problems(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]))
    print(*found, sep="\n", file=sys.stderr)
    print(f"{len(found)} references lead nowhere" if found else "All references lead somewhere")
    sys.exit(bool(found))
