"""The README's command blocks are what a stranger copies and what .ci/run runs."""

import re
import textwrap
import tomllib
from pathlib import Path

import pytest

from lenssr import _demo_command

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_one_block_runs_the_demo_and_one_the_tests():
    main, test = blocks("bash")
    assert "lenssr demo" in main and "pytest" not in main
    assert "pytest" in test and "slow or not slow" in test


@pytest.mark.parametrize("block", blocks("bash"))
def test_blocks_install_with_the_constraints_into_a_new_environment(block):
    assert "python3 -m venv" in block
    assert all("-c constraints.txt" in line for line in block.splitlines() if line.startswith("pip install"))


def test_the_first_block_is_the_demo():
    """README and first page of the docs show the code that `lenssr demo` runs, and its picture."""
    code, picture = _demo_command.code(), "_static/demo.png"
    assert blocks("python")[0] == code
    index = (ROOT / "docs" / "index.rst").read_text(encoding="utf-8")
    assert textwrap.indent(code, "   ") in index
    assert picture in index.partition(".. code-block")[0] and picture in README.partition("```python")[0]


def test_torch_without_cuda_is_named_beside_the_first_block():
    beside = README.partition("```bash")[2].partition("\n## ")[0]
    assert "--index-url https://download.pytorch.org/whl/cpu" in beside and "GB" in beside


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_compile(block):
    compile(block, "README.md", "exec")


def test_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [target for target in targets if "://" not in target and not (ROOT / target).exists()]
    assert missing == []


def test_core_dependencies_are_the_agreed_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {re.split(r"[<>=~!\[ ]", requirement)[0] for requirement in project["dependencies"]}
    agreed = "numpy scipy astropy photutils scikit-image astroscrappy torch matplotlib tqdm pyyaml"
    assert names == set(agreed.split())
