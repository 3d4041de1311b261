"""The packaging definition. Everything about the distribution stands here; pyproject.toml only names the build system and the tools."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Read `__version__` from the source text: importing the package would need NumPy at build time."""
    text = (ROOT / "minigrad" / "_version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError('minigrad/_version.py must hold one line of the form __version__ = "1.2.3"')
    return found.group(1)


def read_long_description() -> str:
    """The README, where there is one: a source tree without it can still be built."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="minigrad-nn",
    version=read_version(),
    description="Fine-tune and serve BERT-class encoders on NumPy: a small deep-learning library whose every gradient is checked.",
    long_description=read_long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["minigrad", "minigrad.*"]),
    package_data={"minigrad": ["py.typed", "kernels/cuda/sources/*.cu", "kernels/cuda/sources/*.cuh"]},
    install_requires=["numpy>=2.0", "tokenizers>=0.20"],
    extras_require={
        "fast": ["numba>=0.60"],  # compiled kernels; the first for NumPy 2
        # One of the two, by what the NVIDIA driver serves; [ctk] brings CUDA's libraries along.
        "gpu": ["cupy-cuda12x[ctk]>=14.1,<15"],
        "gpu13": ["cupy-cuda13x[ctk]>=14.1,<15"],
        "test": ["pytest", "hypothesis", "scipy"],
        # The oracles of tests/oracle. PyTorch is pinned: its results are the reference that tolerances were chosen against.
        "oracle": ["torch==2.13.0", "transformers", "safetensors", "scikit-learn", "seqeval"],
        "examples": ["scikit-learn", "tqdm"],
        "tensorboard": ["tensorboardX>=2.6.2"],  # older ones do not get along with NumPy 2 or protobuf 4
        "fuzz": ["atheris", "pytest", "hypothesis"],  # the seeds come from the tests
        # Compatible releases only, so that what is clean today is clean tomorrow.
        "dev": ["ruff~=0.17.6", "mypy~=2.4.1"],
    },
    entry_points={"console_scripts": ["minigrad = minigrad.cli:main"]},
    zip_safe=False,  # type checkers read py.typed from the package's folder
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
