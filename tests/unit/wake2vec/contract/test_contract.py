"""The contract as a whole: what the runner may see needs no torch, and the runner itself never loads it."""

import pkgutil
import subprocess
import sys

import wake2vec.contract

WITHOUT_TORCH = """
import importlib, sys

class Barred:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets"):
            raise ImportError(f"{name} is not for the contract")

sys.meta_path.insert(0, Barred())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_module_of_the_contract_is_imported_where_torch_cannot_be() -> None:
    modules = [one.name for one in pkgutil.walk_packages(wake2vec.contract.__path__, "wake2vec.contract.")]
    assert {"wake2vec.contract.spec", "wake2vec.contract.words.forms"} <= set(modules)

    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *modules], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
