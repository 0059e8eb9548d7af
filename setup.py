"""What pyproject.toml cannot say: the job files lie at the top of the project and travel inside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

JOBS = Path(__file__).parent / "jobs"
# Texts and models that a person put there are theirs; `make demo` needs a checkout; `new` writes the schema itself.
LEFT_OUT = (".gitignore", "__pycache__", "demo", "demo_*.toml", "job.schema.json")


class WithJobs(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "runner" / "jobs"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(JOBS, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
            for text in (target / "texts").iterdir():
                if text.name != "README.md":
                    text.unlink()


setup(cmdclass={"build_py": WithJobs})
