"""Arguments that cannot be end in a UserError or ValueError that names what was expected, and nothing is made."""

import json
import os
import re
import subprocess
import sys

from tests.conftest import REPOSITORY


def test_arguments_that_cannot_be_are_refused_in_words(tmp_path):
    ending = subprocess.run(
        [sys.executable, "-m", "tests.api.bad_arguments"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ending.returncode == 0, ending.stderr
    found = json.loads(ending.stdout.splitlines()[-1])
    assert len(found) > 150
    wrong = [
        f"{name} -> {outcome}"
        for name, outcome, word in found
        if not re.match(rf"(UserError|ValueError): [\s\S]*({word})", outcome)
    ]
    assert not wrong, "\n".join(wrong)
    assert not list(tmp_path.iterdir())
